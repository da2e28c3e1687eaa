-- The functions of schema jobd that keep rates in step with what is set of them; see functions.sql. What a queue, tenant or
-- key has started stands in `rates` as a time at the rate that held then, and means another one at another rate.

create or replace function jobd.step(rate_count integer, rate_period interval) returns float8
language sql immutable parallel safe
as $$
    -- How many seconds one start takes at a rate.
    select (extract(epoch from step.rate_period) / step.rate_count)::float8
$$;

create or replace function jobd.respent(spent_until timestamptz, moment timestamptz, old_step float8, step float8, burst integer)
returns timestamptz
language sql immutable parallel safe
as $$
    -- Until when as many starts are spent at a new rate, and no more than may be spent at once; null is no rate before.
    select least(case when coalesce(respent.old_step, respent.step) = respent.step then respent.spent_until
                      else respent.moment + make_interval(secs => least(
                          extract(epoch from respent.spent_until - respent.moment)::float8 * (respent.step / respent.old_step), 1e10)) end,
                 respent.moment + make_interval(secs => least(respent.burst * respent.step, 1e10)))
$$;

create or replace function jobd.change_rate(scope text, name text, old_count integer, old_period interval,
                                            rate_count integer, rate_period interval, rate_burst integer) returns void
language plpgsql volatile
as $$
-- What a queue or tenant has started counts as much at its new rate. Without a rate, now or before, it is forgotten. No governed
-- claim goes on until this transaction ends: one that is under way would add to it at the old rate.
#variable_conflict use_column
declare
    moment timestamptz;
begin
    perform pg_advisory_xact_lock(1785684580, 5);
    moment := clock_timestamp();
    if change_rate.old_count is null or change_rate.rate_count is null then
        delete from jobd.rates r where r.scope = change_rate.scope and r.name = change_rate.name;
    else
        update jobd.rates r
           set spent_until = jobd.respent(r.spent_until, moment, jobd.step(change_rate.old_count, change_rate.old_period),
                                          jobd.step(change_rate.rate_count, change_rate.rate_period),
                                          coalesce(change_rate.rate_burst, change_rate.rate_count))
         where r.scope = change_rate.scope and r.name = change_rate.name and r.spent_until > moment;
    end if;
end
$$;

create or replace function jobd.change_key_rate(kind text, old_count integer, old_period interval,
                                                rate_count integer, rate_period interval, rate_burst integer) returns void
language plpgsql volatile
as $$
-- The same for the keys of a kind. Which those are is known of keys that have running or (the first hundred) waiting jobs, of
-- this kind and of no other one with a rate; the others keep as much as any kind could have spent at once.
#variable_conflict use_column
declare
    moment timestamptz;
    most   float8;
begin
    if change_key_rate.rate_count is null then
        return;
    end if;
    perform pg_advisory_xact_lock(1785684580, 5);
    moment := clock_timestamp();
    select max(coalesce(k.rate_burst, k.rate_count) * jobd.step(k.rate_count, k.rate_period)) into most
      from jobd.kinds k where k.rate_count is not null;
    with running as materialized (
        select distinct j.concurrency_key, j.kind from jobd.jobs j where j.state = 'running' and j.concurrency_key is not null
    )
    update jobd.rates r
       set spent_until = case when o.ours
                              then jobd.respent(r.spent_until, moment, jobd.step(change_key_rate.old_count, change_key_rate.old_period),
                                                jobd.step(change_key_rate.rate_count, change_key_rate.rate_period),
                                                coalesce(change_key_rate.rate_burst, change_key_rate.rate_count))
                              else moment + make_interval(secs => least(most, 1e10)) end
      from (select s.name, coalesce(bool_and(l.kind = change_key_rate.kind), false) as ours
              from jobd.rates s
              left join lateral (
                   (select j.kind from jobd.jobs j
                     where j.concurrency_key = s.name and j.state in ('scheduled', 'ready') order by j.id limit 100)
                    union all
                    select a.kind from running a where a.concurrency_key = s.name) l
                on exists (select from jobd.kinds k where k.name = l.kind and k.rate_count is not null)
             where s.scope = 'key' and s.spent_until > moment
             group by s.name) o
     where r.scope = 'key' and r.name = o.name
       and (o.ours or r.spent_until > moment + make_interval(secs => least(most, 1e10)));
end
$$;

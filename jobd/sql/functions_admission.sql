-- The functions of schema jobd for admission: how many jobs of a tenant may wait; see functions.sql.
--
-- What waits is counted where it waits. Of a tenant whose limit is exact, one transaction at a time enqueues: the
-- lock is taken before the count, by a statement of its own, so that the count sees what all before it have committed.

create or replace function jobd.pending(tenant_id text, most integer) returns integer
language sql stable set enable_seqscan = off set enable_bitmapscan = off
as $$
    -- How many jobs of a tenant wait to run, counted up to `most`. By the index, whatever the statistics say.
    select count(*)::int
      from (select from jobd.jobs j
             where j.tenant_id = pending.tenant_id and j.state in ('scheduled', 'ready') limit pending.most) waiting
$$;

create or replace function jobd.admit(tenant_id text, number integer default 1) returns integer
language plpgsql volatile
as $$
-- How many of so many new jobs are more than may wait of this tenant; 0 where it has no limit. Of an exact limit the
-- caller's transaction holds the tenant's lock from here on.
declare
    quota record;
begin
    select t.max_pending, t.exact into quota from jobd.tenants t where t.id = admit.tenant_id and t.max_pending is not null;
    if not found then
        return 0;
    end if;
    if quota.exact then
        perform pg_advisory_xact_lock(1785684581, hashtext(admit.tenant_id));
    end if;
    return greatest(admit.number - greatest(quota.max_pending - jobd.pending(admit.tenant_id, quota.max_pending), 0), 0);
end
$$;

create or replace function jobd.admit_hastily(tenant_id text) returns boolean
language plpgsql volatile set lock_timeout = '100ms'
as $$
-- The lock of `admit`, for callers that others wait for; false: it was not to be had in time.
begin
    perform pg_advisory_xact_lock(1785684581, hashtext(admit_hastily.tenant_id));
    return true;
exception when lock_not_available then
    return false;
end
$$;

create or replace function jobd.pace(tenant_id text, number integer, most integer, moment timestamptz) returns timestamptz
language sql volatile
as $$
    -- When the last of so many more jobs of a tenant becomes due, `most` of them a minute, behind those delayed before.
    insert into jobd.rates as r (scope, name, spent_until)
    values ('pending', pace.tenant_id, pace.moment + pace.number * interval '1 minute' / greatest(pace.most, 1))
    on conflict (scope, name) do update
       set spent_until = greatest(r.spent_until, pace.moment) + (excluded.spent_until - pace.moment)
    returning r.spent_until
$$;

create or replace function jobd.pace_hastily(tenant_id text, number integer, most integer, moment timestamptz)
returns timestamptz
language plpgsql volatile set lock_timeout = '100ms'
as $$
-- The same for callers that others wait for: where it is not to be had in time, as if none had been delayed before.
begin
    return jobd.pace(pace_hastily.tenant_id, pace_hastily.number, pace_hastily.most, pace_hastily.moment);
exception when lock_not_available then
    return pace_hastily.moment + pace_hastily.number * interval '1 minute' / greatest(pace_hastily.most, 1);
end
$$;

create or replace function jobd.turn_away(tenant_id text, ids uuid[], raising boolean, now timestamptz default null)
returns boolean
language plpgsql volatile
as $$
-- What becomes of these jobs, just made, for which the tenant has no room. `refuse` raises, and where nobody is there
-- to be told (not `raising`) they end dead; `shed` ends them dead; `delay` lets them become due one after the other,
-- as many in a minute as may wait. Returns whether they ended.
declare
    moment timestamptz := coalesce(turn_away.now, clock_timestamp());
    quota  record;
    said   text;
    spent  timestamptz;
begin
    select t.max_pending, t.on_full, jobd.pending(turn_away.tenant_id, t.max_pending + cardinality(turn_away.ids))
                                     - cardinality(turn_away.ids) as waiting
      into quota from jobd.tenants t where t.id = turn_away.tenant_id;
    said := format('tenant %L has %s jobs waiting, and may have %s', turn_away.tenant_id, quota.waiting, quota.max_pending);
    if quota.on_full = 'refuse' and turn_away.raising then
        raise exception '%', said || case when cardinality(turn_away.ids) > 1
                                          then format(': %s of the new ones are too many', cardinality(turn_away.ids)) else '' end
            using errcode = 'JD001', table = 'tenants', column = 'max_pending',
                  detail = jsonb_build_object('tenant_id', turn_away.tenant_id, 'limit', quota.max_pending,
                                              'waiting', quota.waiting, 'surplus', cardinality(turn_away.ids)),
                  hint = 'Try again when some have run, or raise max_pending of this tenant.';
    end if;
    if quota.on_full = 'delay' then
        spent := case when turn_away.raising
                      then jobd.pace(turn_away.tenant_id, cardinality(turn_away.ids), quota.max_pending, moment)
                      else jobd.pace_hastily(turn_away.tenant_id, cardinality(turn_away.ids), quota.max_pending, moment) end;
        update jobd.jobs j
           set state = 'scheduled', run_at = t.due, deadline_at = t.due + coalesce(j.delay_tolerance, '0')
          from (select u.id, spent - (cardinality(turn_away.ids) - u.place) * interval '1 minute' / greatest(quota.max_pending, 1) as due
                  from unnest(turn_away.ids) with ordinality as u (id, place)) t
         where j.id = t.id and j.run_at < t.due;
        return false;
    end if;
    with gone as (
        delete from jobd.jobs j where j.id = any (turn_away.ids)
        returning j, moment as at, j.queue = any (array(select name from jobd.queues where keep = 'nothing')) as terse
    ), kept as (
        insert into jobd.job_history
        select h.* from gone g, jobd.ended(g.j, 'dead', case quota.on_full when 'shed' then 'shed: ' else 'refused: ' end || said,
                                           null, null, g.at) h
         where not g.terse
    )
    insert into jobd.tombstones select t.* from gone g, jobd.tombstone(g.j, 'dead', g.at) t where g.terse;
    return true;
end
$$;

create or replace function jobd.weigh(tenant_id text, ids uuid[], raising boolean, now timestamptz default null) returns integer
language plpgsql volatile
as $$
-- Turn away those of these jobs, just made, that are more than may wait of this tenant: the last ones. Returns how many.
-- Where not `raising`, others wait for the caller: it waits for the lock for a moment only, and then counts without.
declare
    quota   record;
    surplus integer;
begin
    select t.max_pending, t.exact into quota from jobd.tenants t where t.id = weigh.tenant_id and t.max_pending is not null;
    if not found then
        return 0;
    end if;
    if quota.exact and weigh.raising then
        perform pg_advisory_xact_lock(1785684581, hashtext(weigh.tenant_id));
    elsif quota.exact then
        perform jobd.admit_hastily(weigh.tenant_id);
    end if;
    surplus := least(jobd.pending(weigh.tenant_id, quota.max_pending + cardinality(weigh.ids)) - quota.max_pending,
                     cardinality(weigh.ids));
    if surplus > 0 then
        perform jobd.turn_away(weigh.tenant_id, weigh.ids[cardinality(weigh.ids) - surplus + 1 :], weigh.raising, weigh.now);
    end if;
    return greatest(surplus, 0);
end
$$;

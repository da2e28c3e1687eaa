-- The functions of schema jobd for admission: how many jobs of a tenant may wait; see functions.sql.
--
--     admit     before the insert: takes the tenant's lock, where its limit is exact, and counts what waits
--     sift      after it: counts again, and turns away what is too many; waits for nobody
--
-- What waits is counted where it waits. Of a tenant whose limit is exact, one transaction at a time enqueues: the
-- lock is taken before the count, by a statement of its own, so that the count sees what all before it have committed. It
-- comes before the insert, which may wait for a unique key that somebody holds who waits for this lock.

drop function if exists jobd.admit_hastily(text);
drop function if exists jobd.pace_hastily(text, integer, integer, timestamptz);
drop function if exists jobd.pace(text, integer, integer, timestamptz);
drop function if exists jobd.turn_away(text, uuid[], boolean, timestamptz);
drop function if exists jobd.weigh(text, uuid[], boolean, timestamptz);

create or replace function jobd.pending(tenant_id text, most integer) returns integer
language sql stable set enable_seqscan = off set enable_bitmapscan = off set jit = off
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
        -- Whoever was waited for may have taken long: the limit may be another by now.
        select t.max_pending into quota.max_pending from jobd.tenants t where t.id = admit.tenant_id and t.max_pending is not null;
        if not found then
            return 0;
        end if;
    end if;
    return greatest(admit.number - greatest(quota.max_pending - jobd.pending(admit.tenant_id, quota.max_pending), 0), 0);
end
$$;

create or replace function jobd.pace(tenant_id text, number integer, most integer, moment timestamptz, latest timestamptz)
returns timestamptz
language plpgsql volatile
as $$
-- When the last of so many more jobs of a tenant becomes due, `most` of them a minute, behind those delayed before, but
-- after no more than `latest`: of those which were delayed once, some may be gone. Waits for nobody: who comes while
-- another transaction delays jobs of the tenant comes behind those that were delayed before both.
declare
    span  interval := number * interval '1 minute' / greatest(most, 1);
    spent timestamptz;
begin
    if pg_try_advisory_xact_lock(1785684582, hashtext(pace.tenant_id)) then
        select r.spent_until into spent from jobd.rates r
         where r.scope = 'pending' and r.name = pace.tenant_id for update skip locked;
        if found then
            spent := least(greatest(spent, pace.moment), pace.latest) + span;
            update jobd.rates r set spent_until = spent where r.scope = 'pending' and r.name = pace.tenant_id;
            return spent;
        end if;
        insert into jobd.rates (scope, name, spent_until)
        select 'pending', pace.tenant_id, pace.moment + span
         where not exists (select from jobd.rates r where r.scope = 'pending' and r.name = pace.tenant_id);
        if found then
            return pace.moment + span;
        end if;
    end if;
    select r.spent_until into spent from jobd.rates r where r.scope = 'pending' and r.name = pace.tenant_id;
    return least(greatest(spent, pace.moment), pace.latest) + span;
end
$$;

create or replace function jobd.sift(tenant_id text, ids uuid[], raising boolean, now timestamptz default null) returns uuid[]
language plpgsql volatile
as $$
-- What becomes of those of these jobs, just made, for which the tenant has no room: the last ones. `refuse` raises, and
-- where nobody is there to be told (not `raising`) they end dead; `shed` ends them dead; `delay` lets them become due
-- one after the other, as many in a minute as may wait. Returns those that ended. One that ended holds no key.
declare
    moment  timestamptz := coalesce(sift.now, clock_timestamp());
    number  integer := cardinality(sift.ids);
    quota   record;
    waiting integer;
    surplus integer;
    late    uuid[];
    said    text;
    spent   timestamptz;
    pause   interval;
    again   boolean := false;
begin
    select t.max_pending, t.on_full, t.exact into quota
      from jobd.tenants t where t.id = sift.tenant_id and t.max_pending is not null;
    if not found then
        return '{}';
    end if;
    if quota.exact then
        -- Whoever is told has it by now, from `admit`. Where it is not to be had, what is committed counts.
        perform pg_try_advisory_xact_lock(1785684581, hashtext(sift.tenant_id));
    end if;
    -- Of more than so many that wait nobody needs the number.
    waiting := jobd.pending(sift.tenant_id, least(quota.max_pending::bigint + number + 1000, 2147483647)::int) - number;
    surplus := least(waiting + number - quota.max_pending, number);
    if surplus <= 0 then
        return '{}';
    end if;
    late := sift.ids[number - surplus + 1 :];
    said := format('tenant %L has %s%s job%s waiting, and may have %s', sift.tenant_id, waiting,
                   case when waiting >= quota.max_pending::bigint + 1000 then ' or more' end,
                   case when waiting <> 1 then 's' end, quota.max_pending);
    if quota.on_full = 'refuse' and sift.raising then
        raise exception '%', said || case when number > 1 then format(': %s of the new ones are too many', surplus) else '' end
            using errcode = 'JD001', table = 'tenants', column = 'max_pending',
                  detail = jsonb_build_object('tenant_id', sift.tenant_id, 'limit', quota.max_pending,
                                              'waiting', waiting, 'surplus', surplus),
                  hint = 'Try again when some have run, or raise max_pending of this tenant.';
    end if;
    if quota.on_full = 'delay' then
        pause := interval '1 minute' / greatest(quota.max_pending, 1);
        spent := jobd.pace(sift.tenant_id, surplus, quota.max_pending, moment,
                           -- All that wait, at this pace.
                           case when waiting < quota.max_pending::bigint + 1000 then moment + waiting * pause end);
        update jobd.jobs j
           set state = 'scheduled', run_at = t.due, deadline_at = t.due + coalesce(j.delay_tolerance, '0')
          from (select u.id, spent - (surplus - u.place) * pause as due from unnest(late) with ordinality as u (id, place)) t
         where j.id = t.id and j.run_at < t.due;
        return '{}';
    end if;
    loop
        begin
            with gone as (
                delete from jobd.jobs j where j.id = any (late)
                returning j, moment as at, j.queue = any (array(select name from jobd.queues where keep = 'nothing')) as terse
            ), freed as (
                delete from jobd.unique_keys k using gone g
                 where (g.j).unique_for is not null and k.unique_key = (g.j).unique_key and k.kind = (g.j).kind
                   and k.tenant_id = (g.j).tenant_id and k.job_id = (g.j).id
            ), kept as (
                insert into jobd.job_history
                select h.* from gone g, jobd.ended(g.j, 'dead', case quota.on_full when 'shed' then 'shed: ' else 'refused: ' end || said,
                                                   null, null, g.at) h
                 where not g.terse
            )
            insert into jobd.tombstones select t.* from gone g, jobd.tombstone(g.j, 'dead', g.at) t where g.terse;
            return late;
        exception when check_violation then
            -- The history has no partition for today: no daemon has run for a week.
            if again or not has_function_privilege('jobd.ensure_partitions(integer, timestamptz)', 'execute') then
                raise;
            end if;
        end;
        again := true;
        perform jobd.ensure_partitions(now => sift.now);
    end loop;
end
$$;

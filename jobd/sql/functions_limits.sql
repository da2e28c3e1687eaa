-- The functions of schema jobd for limits; see functions.sql.

create or replace function jobd.tokens(spent_until timestamptz, rate_count integer, rate_period interval, rate_burst integer,
                                       moment timestamptz) returns integer
language sql immutable
as $$
    -- How many may start now at a rate; null without one. Starts are spread over the period, and up to the burst may
    -- come at once after a pause.
    select case when rate_count is null then null else
           greatest(coalesce(rate_burst, rate_count)
                    - ceil(greatest(extract(epoch from spent_until - moment), 0) * rate_count
                           / extract(epoch from rate_period))::int, 0) end
$$;

create or replace function jobd.claim_under_limits(
    worker_id    uuid,
    queues       text[],
    rooms        integer[],
    kinds        text[],
    kind_rooms   integer[],
    suspects     integer,
    suspect_from integer,
    moment       timestamptz,
    deep         boolean
) returns setof jobd.jobs
language plpgsql volatile
as $$
-- One pass of claim_governed: over the front of each queue, or, if `deep`, also over what stands behind it.
-- Jobs whose key, use case or tenant is full are left out; the others are numbered within each of these, one after the
-- other, and those stay for which there is room.
#variable_conflict use_variable
begin
    return query
    with recursive running as materialized (
        select r.queue, r.tenant_id, r.use_case, r.concurrency_key, count(*) as number
          from jobd.jobs r where r.state = 'running' group by 1, 2, 3, 4
    ), ours as materialized (
        -- What the first pass of this claim has taken.
        select r.queue, r.kind, r.crashes from jobd.jobs r
         where deep and r.state = 'running' and r.worker_id = claim_under_limits.worker_id and r.claimed_at = moment
    ), of_queue as materialized (
        select u.queue, coalesce(q.fair, false) as fair,
               least(u.room - (select count(*) from ours o where o.queue = u.queue), q.max_running - (select coalesce(sum(r.number), 0) from running r where r.queue = u.queue),
                     jobd.tokens(s.spent_until, q.rate_count, q.rate_period, q.rate_burst, moment))::int as room
          from unnest(claim_under_limits.queues, claim_under_limits.rooms) as u (queue, room)
          left join jobd.queues q on q.name = u.queue
          left join jobd.rates s on s.scope = 'queue' and s.name = u.queue
         where q.paused_at is null
    ), of_tenant as materialized (
        select t.id, t.weight,
               least(t.max_running - (select coalesce(sum(r.number), 0) from running r where r.tenant_id = t.id),
                     jobd.tokens(s.spent_until, t.rate_count, t.rate_period, t.rate_burst, moment))::int as room
          from jobd.tenants t left join jobd.rates s on s.scope = 'tenant' and s.name = t.id
         where t.governed or t.weight <> 1
    ), front as materialized (
        -- The first of each queue, in order: those without a key or use case, those with one, those that crashed.
        select c.*, q.fair, q.room
          from of_queue q cross join lateral (
               (select 'plain' as part, r.id, r.queue, r.kind, r.tenant_id, r.use_case, r.concurrency_key, r.crashes, r.priority, r.deadline_at,
                      r.deadline_policy, r.delay_tolerance
                  from jobd.jobs r
                 where r.queue = q.queue and r.state = 'ready' and r.crashes = 0
                   and r.concurrency_key is null and r.use_case is null
                 order by r.priority desc, r.deadline_at, r.id limit case when q.fair then q.room else 2 * q.room + 100 end)
               union all
               (select 'keyed', r.id, r.queue, r.kind, r.tenant_id, r.use_case, r.concurrency_key, r.crashes, r.priority, r.deadline_at,
                      r.deadline_policy, r.delay_tolerance
                  from jobd.jobs r
                 where r.queue = q.queue and r.state = 'ready' and (r.concurrency_key is not null or r.use_case is not null)
                 order by r.priority desc, r.deadline_at, r.id limit 2 * q.room + 100)
               union all
               (select 'crashed', r.id, r.queue, r.kind, r.tenant_id, r.use_case, r.concurrency_key, r.crashes, r.priority, r.deadline_at,
                      r.deadline_policy, r.delay_tolerance
                  from jobd.jobs r
                 where r.queue = q.queue and r.state = 'ready' and r.crashes > 0
                   and r.concurrency_key is null and r.use_case is null
                 order by r.priority desc, r.deadline_at, r.id limit q.room)) c
         where q.room > 0
    ), deep as materialized (
        -- Queues in which more wait than was looked at: behind a long backlog of one key others may have room.
        select f.queue, f.room, f.fair, bool_or(f.part = 'keyed') as keyed
          from (select f.queue, f.room, f.fair, f.part from front f
                 group by f.queue, f.room, f.fair, f.part having count(*) >= 2 * f.room + 100) f
         where deep
         group by f.queue, f.room, f.fair
    ), key_of (queue, room, key, number) as (
        -- Their keys, so many at a time, from where the claim before ended.
        select d.queue, d.room, (select r.concurrency_key from jobd.jobs r
                                  where r.queue = d.queue and r.state = 'ready'
                                    and r.concurrency_key > coalesce((select t.after from jobd.turns t where t.queue = d.queue), '')
                                  order by r.concurrency_key limit 1), 1
          from deep d where d.keyed and not d.fair
        union all
        select k.queue, k.room, (select r.concurrency_key from jobd.jobs r
                                  where r.queue = k.queue and r.state = 'ready' and r.concurrency_key > k.key
                                  order by r.concurrency_key limit 1), k.number + 1
          from key_of k where k.key is not null and k.number < 1000
    ), use_case_of (queue, room, use_case) as (
        select d.queue, d.room, (select r.use_case from jobd.jobs r
                                  where r.queue = d.queue and r.state = 'ready' and r.use_case is not null
                                  order by r.use_case limit 1)
          from deep d where d.keyed and not d.fair
        union all
        select u.queue, u.room, (select r.use_case from jobd.jobs r
                                  where r.queue = u.queue and r.state = 'ready' and r.use_case > u.use_case
                                  order by r.use_case limit 1)
          from use_case_of u where u.use_case is not null
    ), tenant_of (queue, room, fair, tenant_id) as (
        -- The tenants that have ready jobs, each by one look into the index: of fair queues, and of deep ones.
        select q.queue, q.room, q.fair, (select r.tenant_id from jobd.jobs r
                                          where r.queue = q.queue and r.state = 'ready' and r.tenant_id is not null
                                          order by r.tenant_id limit 1)
          from of_queue q
         where q.room > 0 and (q.fair or q.queue in (select d.queue from deep d) and exists (select from of_tenant))
        union all
        select w.queue, w.room, w.fair, (select r.tenant_id from jobd.jobs r
                                          where r.queue = w.queue and r.state = 'ready' and r.tenant_id > w.tenant_id
                                          order by r.tenant_id limit 1)
          from tenant_of w where w.tenant_id is not null
    ), share as materialized (
        -- In a fair queue each gets its weight of the room, beginning somewhere within its first turn.
        select w.queue, w.fair, w.tenant_id, coalesce(t.weight, 1) as weight, random() as start,
               least(w.room, t.room,
                     case when w.fair then ceil(2.0 * w.room * coalesce(t.weight, 1)
                                                / sum(coalesce(t.weight, 1)) over (partition by w.queue)) + 1 end)::int as room
          from tenant_of w left join of_tenant t on t.id = w.tenant_id
         where w.tenant_id is not null and coalesce(t.room, 1) > 0
    ), found as materialized (
        select 0::float8 as turn, f.id, f.queue, f.kind, f.tenant_id, f.use_case, f.concurrency_key, f.crashes, f.priority,
               f.deadline_at, f.deadline_policy, f.delay_tolerance
          from front f where not f.fair or f.tenant_id is null
        union
        select case when h.fair then (row_number() over (partition by h.queue, h.tenant_id
                                                         order by c.priority desc, c.deadline_at, c.id) - h.start) / h.weight
                    else 0 end, c.*
          from share h cross join lateral (
               select r.id, r.queue, r.kind, r.tenant_id, r.use_case, r.concurrency_key, r.crashes, r.priority, r.deadline_at,
                      r.deadline_policy, r.delay_tolerance
                 from jobd.jobs r
                where r.queue = h.queue and r.tenant_id = h.tenant_id and r.state = 'ready'
                order by r.priority desc, r.deadline_at, r.id limit h.room) c
        union
        select 0, c.*
          from key_of k cross join lateral (
               select r.id, r.queue, r.kind, r.tenant_id, r.use_case, r.concurrency_key, r.crashes, r.priority, r.deadline_at,
                      r.deadline_policy, r.delay_tolerance
                 from jobd.jobs r
                where r.queue = k.queue and r.concurrency_key = k.key and r.state = 'ready'
                order by r.priority desc, r.deadline_at, r.id
                limit least(k.room, (select max(n.key_limit) from jobd.kinds n))) c
         where k.key is not null
        union
        select 0, c.*
          from use_case_of u cross join lateral (
               select r.id, r.queue, r.kind, r.tenant_id, r.use_case, r.concurrency_key, r.crashes, r.priority, r.deadline_at,
                      r.deadline_policy, r.delay_tolerance
                 from jobd.jobs r
                where r.queue = u.queue and r.use_case = u.use_case and r.state = 'ready'
                order by r.priority desc, r.deadline_at, r.id limit u.room) c
         where u.use_case is not null
    ), of_key as materialized (
        -- The jobs of a key may be of several kinds, with a limit each.
        select f.concurrency_key, f.kind, coalesce(k.ordered, false) as ordered,
               least(case when k.ordered then 1 else coalesce(k.key_limit, 1) end
                     - (select coalesce(sum(r.number), 0) from running r where r.concurrency_key = f.concurrency_key),
                     jobd.tokens(s.spent_until, k.rate_count, k.rate_period, k.rate_burst, moment))::int as room
          from (select distinct concurrency_key, kind from found where concurrency_key is not null) f
          left join jobd.kinds k on k.name = f.kind
          left join jobd.rates s on s.scope = 'key' and s.name = f.concurrency_key
    ), of_use_case as materialized (
        select f.use_case,
               coalesce(u.max_running, 10)
               - (select coalesce(sum(r.number), 0) from running r where r.use_case = f.use_case)::int as room
          from (select distinct use_case from found where use_case is not null) f
          left join jobd.use_cases u on u.name = f.use_case
    ), open as (
        select f.*, k.room as key_room, u.room as use_case_room, t.room as tenant_room, p.room as kind_room, q.room as queue_room
          from found f
          join of_queue q on q.queue = f.queue
          left join of_key k on k.concurrency_key = f.concurrency_key and k.kind = f.kind
          left join of_use_case u on u.use_case = f.use_case
          left join of_tenant t on t.id = f.tenant_id
          left join (select p.kind, p.room - (select count(*) from ours o where o.kind = p.kind) as room
                       from unnest(claim_under_limits.kinds, claim_under_limits.kind_rooms) as p (kind, room)) p on p.kind = f.kind
         where least(k.room, u.room, t.room, p.room, q.room) > 0
           and (f.deadline_policy = 'run' or f.delay_tolerance is null or f.deadline_at >= moment)
           -- In order: nobody before it waits, and nobody of its key is at work or between two attempts.
           and not (coalesce(k.ordered, false)
                    and exists (select from jobd.jobs o
                                 where o.concurrency_key = f.concurrency_key and o.id <> f.id
                                   and (o.state = 'running' or o.state = 'scheduled' and o.claim_no > 0
                                        or o.state = 'ready' and o.id < f.id)))
    ), by_key as (
        select * from (select *, row_number() over (partition by concurrency_key order by turn, priority desc, deadline_at, id)
                                 as key_place from open) o
         where concurrency_key is null or key_place <= key_room
    ), by_use_case as (
        select * from (select *, row_number() over (partition by use_case order by turn, priority desc, deadline_at, id)
                                 as use_case_place from by_key) o
         where use_case is null or use_case_place <= use_case_room
    ), by_tenant as (
        select * from (select *, row_number() over (partition by tenant_id order by turn, priority desc, deadline_at, id)
                                 as tenant_place from by_use_case) o
         where tenant_room is null or tenant_place <= tenant_room
    ), by_kind as (
        select * from (select *, row_number() over (partition by kind order by turn, priority desc, deadline_at, id)
                                 as kind_place,
                              row_number() over (partition by crashes >= claim_under_limits.suspect_from
                                                 order by turn, priority desc, deadline_at, id) as suspect_place
                         from by_tenant) o
         where (kind_room is null or kind_place <= kind_room)
           and (crashes < claim_under_limits.suspect_from or suspect_place <= claim_under_limits.suspects
                                    - (select count(*) from ours o where o.crashes >= claim_under_limits.suspect_from))
    ), by_queue as (
        select id from (select *, row_number() over (partition by queue order by turn, priority desc, deadline_at, id)
                                  as queue_place from by_kind) o
         where queue_place <= queue_room
    ), taken as (
        update jobd.jobs j
           set state = 'running', claim_no = j.claim_no + 1, attempt = j.attempt + 1, worker_id = claim_under_limits.worker_id,
               claimed_at = moment
         where j.id = any (array(select r.id from jobd.jobs r
                                  where r.id = any (array(select b.id from by_queue b)) and r.state = 'ready'
                                    for update skip locked))
        returning j.*
    ), spent as (
        insert into jobd.rates as s (scope, name, spent_until)
        select 'queue', q.name, moment + count(*) * q.rate_period / q.rate_count
          from taken t join jobd.queues q on q.name = t.queue where q.rate_count is not null
         group by q.name, q.rate_period, q.rate_count
        union all
        select 'tenant', n.id, moment + count(*) * n.rate_period / n.rate_count
          from taken t join jobd.tenants n on n.id = t.tenant_id where n.rate_count is not null
         group by n.id, n.rate_period, n.rate_count
        union all
        select 'key', t.concurrency_key, moment + max(t.step)
          from (select t.concurrency_key, sum(k.rate_period / k.rate_count) over (partition by t.concurrency_key) as step
                  from taken t join jobd.kinds k on k.name = t.kind
                 where k.rate_count is not null and t.concurrency_key is not null) t
         group by t.concurrency_key
        on conflict (scope, name) do update
           set spent_until = greatest(s.spent_until, moment) + (excluded.spent_until - moment)
    ), turned as (
        insert into jobd.turns as t (queue, after)
        select k.queue, coalesce(max(k.key) filter (where k.number = 1000), '') from key_of k group by k.queue
        on conflict (queue) do update set after = excluded.after where t.after <> excluded.after
    )
    select t.* from taken t;
end
$$;

create or replace function jobd.claim_governed(
    worker_id    uuid,
    queues       text[],
    rooms        integer[],
    kinds        text[],
    kind_rooms   integer[],
    suspects     integer,
    suspect_from integer,
    now          timestamptz default null
) returns setof jobd.jobs
language plpgsql volatile
as $$
-- Claim ready jobs under limits that count over all daemons. One such claim at a time, up to its commit: the statements
-- behind the lock see what all claims before it have taken, so that no limit is exceeded, and whoever finishes
-- meanwhile only makes room.
declare
    moment timestamptz := coalesce(claim_governed.now, clock_timestamp());
    taken  integer;
begin
    if not exists (select from jobd.workers w where w.id = claim_governed.worker_id and w.lease_until > moment) then
        return;
    end if;
    perform pg_advisory_xact_lock(1785684580, 5);
    return query select * from jobd.claim_under_limits(worker_id, queues, rooms, kinds, kind_rooms, suspects, suspect_from, moment, false);
    get diagnostics taken = row_count;
    if taken < (select sum(r.room) from unnest(rooms) as r (room)) then
        return query select * from jobd.claim_under_limits(worker_id, queues, rooms, kinds, kind_rooms, suspects, suspect_from, moment, true);
    end if;
end
$$;

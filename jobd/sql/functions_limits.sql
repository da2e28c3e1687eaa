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
-- Claim ready jobs under limits that count over all daemons. One such claim at a time, up to its commit: the statement
-- behind the lock sees what all claims before it have taken, so that no limit is exceeded, and whoever finishes
-- meanwhile only makes room. Jobs whose key, use case or tenant is full are left out; the others are numbered within
-- each of these, one after the other, and those stay for which there is room.
#variable_conflict use_column
declare
    moment timestamptz := coalesce(claim_governed.now, clock_timestamp());
begin
    if not exists (select from jobd.workers w where w.id = claim_governed.worker_id and w.lease_until > moment) then
        return;
    end if;
    perform pg_advisory_xact_lock(1785684580, 5);
    return query
    with recursive running as materialized (
        select r.queue, r.tenant_id, r.use_case, r.concurrency_key, count(*) as number
          from jobd.jobs r where r.state = 'running' group by 1, 2, 3, 4
    ), of_queue as materialized (
        select u.queue, coalesce(q.fair, false) as fair,
               least(u.room, q.max_running - (select coalesce(sum(r.number), 0) from running r where r.queue = u.queue),
                     jobd.tokens(s.spent_until, q.rate_count, q.rate_period, q.rate_burst, moment))::int as room
          from unnest(claim_governed.queues, claim_governed.rooms) as u (queue, room)
          left join jobd.queues q on q.name = u.queue
          left join jobd.rates s on s.scope = 'queue' and s.name = u.queue
         where q.paused_at is null
    ), of_tenant as materialized (
        select t.id, t.weight,
               least(t.max_running - (select coalesce(sum(r.number), 0) from running r where r.tenant_id = t.id),
                     jobd.tokens(s.spent_until, t.rate_count, t.rate_period, t.rate_burst, moment))::int as room
          from jobd.tenants t left join jobd.rates s on s.scope = 'tenant' and s.name = t.id
         where t.governed or t.weight <> 1
    ), waiting (queue, room, tenant_id) as (
        -- The tenants that have ready jobs in fair queues, each by one look into the index.
        select q.queue, q.room, (select r.tenant_id from jobd.jobs r
                                  where r.queue = q.queue and r.state = 'ready' and r.tenant_id is not null
                                  order by r.tenant_id limit 1)
          from of_queue q where q.fair and q.room > 0
        union all
        select w.queue, w.room, (select r.tenant_id from jobd.jobs r
                                  where r.queue = w.queue and r.state = 'ready' and r.tenant_id > w.tenant_id
                                  order by r.tenant_id limit 1)
          from waiting w where w.tenant_id is not null
    ), share as materialized (
        -- Each gets its weight of the room, beginning somewhere within its first turn.
        select w.queue, w.tenant_id, coalesce(t.weight, 1) as weight, random() as start,
               least(w.room, t.room,
                     ceil(2.0 * w.room * coalesce(t.weight, 1) / sum(coalesce(t.weight, 1)) over (partition by w.queue)) + 1)::int as room
          from waiting w left join of_tenant t on t.id = w.tenant_id
         where w.tenant_id is not null and coalesce(t.room, 1) > 0
    ), found as materialized (
        select 0::float8 as turn, c.*
          from of_queue q cross join lateral (
               (select r.id, r.queue, r.kind, r.tenant_id, r.use_case, r.concurrency_key, r.crashes, r.priority, r.deadline_at,
                       r.deadline_policy, r.delay_tolerance
                  from jobd.jobs r
                 where r.queue = q.queue and r.state = 'ready' and r.crashes = 0
                   and r.concurrency_key is null and r.use_case is null
                 order by r.priority desc, r.deadline_at, r.id limit 2 * q.room + 100)
               union all
               (select r.id, r.queue, r.kind, r.tenant_id, r.use_case, r.concurrency_key, r.crashes, r.priority, r.deadline_at,
                       r.deadline_policy, r.delay_tolerance
                  from jobd.jobs r
                 where r.queue = q.queue and r.state = 'ready' and (r.concurrency_key is not null or r.use_case is not null)
                 order by r.priority desc, r.deadline_at, r.id limit 2 * q.room + 100)
               union all
               (select r.id, r.queue, r.kind, r.tenant_id, r.use_case, r.concurrency_key, r.crashes, r.priority, r.deadline_at,
                       r.deadline_policy, r.delay_tolerance
                  from jobd.jobs r
                 where r.queue = q.queue and r.state = 'ready' and r.crashes > 0
                   and r.concurrency_key is null and r.use_case is null
                 order by r.priority desc, r.deadline_at, r.id limit q.room)) c
         where q.room > 0 and (not q.fair or c.tenant_id is null)
        union all
        select (row_number() over (partition by h.queue, h.tenant_id order by c.priority desc, c.deadline_at, c.id) - h.start)
               / h.weight, c.*
          from share h cross join lateral (
               select r.id, r.queue, r.kind, r.tenant_id, r.use_case, r.concurrency_key, r.crashes, r.priority, r.deadline_at,
                      r.deadline_policy, r.delay_tolerance
                 from jobd.jobs r
                where r.queue = h.queue and r.tenant_id = h.tenant_id and r.state = 'ready'
                order by r.priority desc, r.deadline_at, r.id limit h.room) c
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
          left join unnest(claim_governed.kinds, claim_governed.kind_rooms) as p (kind, room) on p.kind = f.kind
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
                              row_number() over (partition by crashes >= claim_governed.suspect_from
                                                 order by turn, priority desc, deadline_at, id) as suspect_place
                         from by_tenant) o
         where (kind_room is null or kind_place <= kind_room)
           and (crashes < claim_governed.suspect_from or suspect_place <= claim_governed.suspects)
    ), by_queue as (
        select id from (select *, row_number() over (partition by queue order by turn, priority desc, deadline_at, id)
                                  as queue_place from by_kind) o
         where queue_place <= queue_room
    ), taken as (
        update jobd.jobs j
           set state = 'running', claim_no = j.claim_no + 1, attempt = j.attempt + 1, worker_id = claim_governed.worker_id,
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
    )
    select t.* from taken t;
end
$$;

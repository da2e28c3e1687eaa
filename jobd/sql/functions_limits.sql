-- The functions of schema jobd for limits; see functions.sql.

create or replace function jobd.tokens(spent_until timestamptz, rate_count integer, rate_period interval, rate_burst integer,
                                       moment timestamptz) returns integer
language sql immutable
as $$
    -- How many may start now at a rate; null without one. Starts are spread over the period, and up to the burst may
    -- come at once after a pause. A debt that the rate cannot have made is none: it is of another rate, or of a clock
    -- that was ahead.
    select case when rate_count is null then null
                when r.debt > r.burst + 1 then r.burst
                else greatest(r.burst - ceil(greatest(r.debt, 0)), 0)::int end
      from (select coalesce(rate_burst, rate_count) as burst,
                   extract(epoch from spent_until - moment) * rate_count / extract(epoch from rate_period) as debt) r
$$;

create or replace function jobd.spent(spent_until timestamptz, starts bigint, rate_count integer, rate_period interval,
                                      rate_burst integer, moment timestamptz) returns timestamptz
language sql immutable
as $$
    -- Until when a rate is spent once so many more have started.
    select case when jobd.tokens(spent_until, rate_count, rate_period, rate_burst, moment)
                     < coalesce(rate_burst, rate_count)
                then greatest(spent_until, moment) else moment end
           + least(starts * rate_period / rate_count, interval '1000 years')
$$;

-- It returned jobs.
drop function if exists jobd.claim_governed(uuid, text[], integer[], text[], integer[], integer, integer, timestamptz);

create or replace function jobd.claim_governed(
    worker_id    uuid,
    queues       text[],
    rooms        integer[],
    kinds        text[],
    kind_rooms   integer[],
    suspects     integer,
    suspect_from integer,
    now          timestamptz default null
) returns setof uuid
language plpgsql volatile
-- Its plan shall not depend on statistics, which are stale in a queue: what is ordered is read from an index in that
-- order and never sorted, and what runs is joined by a hash table, though it may look like nothing. Planning takes longer
-- than running.
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set enable_nestloop = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
-- What is off costs ten billion, for which it would be compiled at each claim, in 6 seconds: our own sessions do without,
-- but a pooler has others, too.
set jit = off
as $$
-- Claim ready jobs under limits that count over all daemons; returns which. One such claim at a time, up to its commit:
-- the statements behind the lock see what all claims before it have taken, so that no limit is exceeded, and whoever
-- finishes meanwhile only makes room. It returns no rows of jobs: a client that does not read them would keep the lock.
#variable_conflict use_variable
declare
    moment     timestamptz;
    full_kinds text[] := array(select p.kind from unnest(kinds, kind_rooms) as p (kind, room) where p.room <= 0);
    -- The first look is at the front of each queue, and, where limits left some of it out, the second also at what
    -- stands behind it.
    deep       boolean := false;
    deeper     boolean;
    places     tid[];
    -- Those that somebody else held, and that this claim took already.
    passed     tid[] := '{}';
    rounds     integer := 0;
    taken      integer;
begin
    perform pg_advisory_xact_lock(1785684580, 5);
    -- Behind a pooler the commit is a message of its own: who is too busy to send it, or gone, shall not keep the lock.
    perform set_config('idle_in_transaction_session_timeout', '1s', true);
    -- Not before: to wait for the others may have taken long.
    moment := coalesce(claim_governed.now, clock_timestamp());
    if not exists (select from jobd.workers w where w.id = claim_governed.worker_id and w.lease_until > moment) then
        return;
    end if;
    loop
    -- Jobs whose key, use case or tenant is full are left out; the others are numbered within each of these, one after
    -- the other, and those stay for which there is room. What has none of them takes no part in that.
    with recursive running as materialized (
        select r.queue, r.tenant_id, r.use_case, r.concurrency_key from jobd.jobs r where r.state = 'running'
    ), ours as materialized (
        -- What this claim has taken already.
        select r.queue, r.kind, r.crashes from jobd.jobs r
         where passed <> '{}' and r.state = 'running' and r.worker_id = claim_governed.worker_id and r.claimed_at = moment
    ), of_queue as materialized (
        select u.queue, coalesce(q.fair, false) as fair,
               least(u.room - (select count(*) from ours o where o.queue = u.queue),
                     case when q.max_running is not null
                          then q.max_running - (select count(*) from running r where r.queue = u.queue) end,
                     case when q.rate_count is not null
                          then jobd.tokens((select s.spent_until from jobd.rates s
                                             where s.scope = 'queue' and s.name = u.queue),
                                           q.rate_count, q.rate_period, q.rate_burst, moment) end)::int as room
          from unnest(claim_governed.queues, claim_governed.rooms) as u (queue, room)
          left join jobd.queues q on q.name = u.queue
         where q.paused_at is null
    ), wanted as materialized (
        select q.queue, q.fair, q.room, case when deep then 2 * q.room + 100 else q.room + q.room / 4 + 10 end as look
          from of_queue q where q.room > 0
    ), front as materialized (
        -- The first of each queue, in order: those without a key or use case, those with one, those that crashed. Of
        -- each as many as `most`.
        select c.*, q.fair, q.room
          from wanted q cross join lateral (
               (select 'plain' as part, case when not q.fair then q.look when deep then q.room else least(q.room, 100) end as most,
                       r.ctid as place, r.id, r.queue, r.kind, r.tenant_id, r.use_case, r.concurrency_key, r.crashes,
                       r.priority, r.deadline_at
                  from jobd.jobs r
                 where r.queue = q.queue and r.state = 'ready' and r.crashes = 0
                   and r.concurrency_key is null and r.use_case is null
                   and r.kind <> all (full_kinds)
                   and (r.deadline_policy = 'run' or r.delay_tolerance is null or r.deadline_at >= moment) and r.ctid <> all (passed)
                 order by r.priority desc, r.deadline_at, r.id
                 limit case when not q.fair then q.look when deep then q.room else least(q.room, 100) end)
               union all
               (select 'keyed', q.look,
                       r.ctid, r.id, r.queue, r.kind, r.tenant_id, r.use_case, r.concurrency_key, r.crashes,
                       r.priority, r.deadline_at
                  from jobd.jobs r
                 where r.queue = q.queue and r.state = 'ready'
                   and (r.concurrency_key is not null or r.use_case is not null)
                   and r.kind <> all (full_kinds)
                   and (r.deadline_policy = 'run' or r.delay_tolerance is null or r.deadline_at >= moment) and r.ctid <> all (passed)
                 order by r.priority desc, r.deadline_at, r.id limit q.look)
               union all
               (select 'crashed', q.look,
                       r.ctid, r.id, r.queue, r.kind, r.tenant_id, r.use_case, r.concurrency_key, r.crashes,
                       r.priority, r.deadline_at
                  from jobd.jobs r
                 where r.queue = q.queue and r.state = 'ready' and r.crashes > 0
                   and r.concurrency_key is null and r.use_case is null
                   and r.kind <> all (full_kinds)
                   and (r.deadline_policy = 'run' or r.delay_tolerance is null or r.deadline_at >= moment) and r.ctid <> all (passed)
                 order by r.priority desc, r.deadline_at, r.id limit q.look)) c
    ), cut as materialized (
        -- Of what more waits than was looked at.
        select f.queue, f.part, f.room, f.fair from front f group by f.queue, f.part, f.room, f.fair, f.most having count(*) >= f.most
    ), behind as materialized (
        -- Queues with such: behind a long backlog of one key others may have room.
        select c.queue, c.room, c.fair, bool_or(c.part = 'keyed') as keyed from cut c where deep group by c.queue, c.room, c.fair
    ), key_of (queue, room, key, number) as (
        -- Their keys, so many at a time, from where the claim before ended. Only one index has this order.
        select d.queue, d.room,
               (select case when r.queue = d.queue then r.concurrency_key end from jobd.jobs r
                 where (r.queue, r.concurrency_key) > (d.queue, coalesce((select t.after from jobd.turns t
                                                                           where t.queue = d.queue and t.scope = 'key'), ''))
                   and r.state = 'ready' and r.concurrency_key is not null
                 order by r.queue, r.concurrency_key limit 1), 1
          from behind d where d.keyed
        union all
        select k.queue, k.room, (select case when r.queue = k.queue then r.concurrency_key end from jobd.jobs r
                                  where (r.queue, r.concurrency_key) > (k.queue, k.key)
                                    and r.state = 'ready' and r.concurrency_key is not null
                                  order by r.queue, r.concurrency_key limit 1), k.number + 1
          from key_of k where k.key is not null and k.number < 1000
    ), use_case_of (queue, room, use_case) as (
        select d.queue, d.room, (select r.use_case from jobd.jobs r
                                  where r.queue = d.queue and r.state = 'ready' and r.use_case is not null
                                  order by r.use_case limit 1)
          from behind d where d.keyed
        union all
        select u.queue, u.room, (select r.use_case from jobd.jobs r
                                  where r.queue = u.queue and r.state = 'ready' and r.use_case > u.use_case
                                  order by r.use_case limit 1)
          from use_case_of u where u.use_case is not null
    ), tenant_of (queue, room, fair, tenant_id, number) as (
        -- The tenants that have ready jobs, each by one look into the index: of fair queues, and where more wait.
        select q.queue, q.room, q.fair,
               (select case when r.queue = q.queue then r.tenant_id end from jobd.jobs r
                 where (r.queue, r.tenant_id) > (q.queue, coalesce((select t.after from jobd.turns t
                                                                     where t.queue = q.queue and t.scope = 'tenant'), ''))
                   and r.state = 'ready' and r.tenant_id is not null
                 order by r.queue, r.tenant_id limit 1), 1
          from wanted q
         where q.fair or q.queue in (select d.queue from behind d) and exists (select from jobd.tenants t where t.governed)
        union all
        select w.queue, w.room, w.fair, (select case when r.queue = w.queue then r.tenant_id end from jobd.jobs r
                                          where (r.queue, r.tenant_id) > (w.queue, w.tenant_id)
                                            and r.state = 'ready' and r.tenant_id is not null
                                          order by r.queue, r.tenant_id limit 1), w.number + 1
          from tenant_of w where w.tenant_id is not null and w.number < 1000
    ), full_use_case as materialized (
        select c.use_case
          from (select r.use_case, count(*) as number from running r where r.use_case is not null group by r.use_case
                union all
                select u.name, 0 from jobd.use_cases u where u.max_running = 0) c
          left join jobd.use_cases u on u.name = c.use_case
         where deep and c.number >= coalesce(u.max_running, 10)
    ), beside as materialized (
        -- The first of each of those keys and use cases; of a key behind those that wait for a use case.
        select c.*
          from key_of k cross join lateral (
               select f.* from (
                      select r.ctid as place, r.id, r.queue, r.kind, r.tenant_id, r.use_case, r.concurrency_key, r.crashes,
                             r.priority, r.deadline_at
                        from jobd.jobs r
                       where r.queue = k.queue and r.concurrency_key = k.key and r.state = 'ready'
                         and r.kind <> all (full_kinds)
                         and (r.deadline_policy = 'run' or r.delay_tolerance is null or r.deadline_at >= moment) and r.ctid <> all (passed)
                       order by r.priority desc, r.deadline_at, r.id
                       limit greatest(10, least(200, 20000 / (select count(*) from key_of)))) f
                where f.use_case is null or f.use_case <> all (array(select u.use_case from full_use_case u))
                limit least(k.room, coalesce((select max(n.key_limit) from jobd.kinds n), 1))) c
         where k.key is not null
        union
        -- In order, the first of a key may stand behind others of a higher priority.
        select c.*
          from key_of k cross join lateral (
               select r.ctid as place, r.id, r.queue, r.kind, r.tenant_id, r.use_case, r.concurrency_key, r.crashes, r.priority, r.deadline_at
                 from jobd.jobs r
                where r.concurrency_key = k.key and r.state in ('scheduled', 'ready') and r.state = 'ready'
                  and r.queue = k.queue and r.kind <> all (full_kinds)
                  and (r.deadline_policy = 'run' or r.delay_tolerance is null or r.deadline_at >= moment) and r.ctid <> all (passed)
                order by r.id limit 1) c
         where k.key is not null and exists (select from jobd.kinds n where n.ordered)
        union
        select c.*
          from use_case_of u cross join lateral (
               select r.ctid as place, r.id, r.queue, r.kind, r.tenant_id, r.use_case, r.concurrency_key, r.crashes, r.priority, r.deadline_at
                 from jobd.jobs r
                where r.queue = u.queue and r.use_case = u.use_case and r.state = 'ready'
                  and r.kind <> all (full_kinds)
                  and (r.deadline_policy = 'run' or r.delay_tolerance is null or r.deadline_at >= moment) and r.ctid <> all (passed)
                order by r.priority desc, r.deadline_at, r.id
                -- More than there is room for: the first ones may all wait for a key or a tenant.
                limit greatest(u.room, least(500, 5000 / (select count(*) from use_case_of)))) c
         where u.use_case is not null
    ), of_tenant as materialized (
        select n.tenant_id, t.weight,
               least(t.max_running - coalesce(r.number, 0),
                     case when t.rate_count is not null
                          then jobd.tokens((select s.spent_until from jobd.rates s
                                             where s.scope = 'tenant' and s.name = n.tenant_id),
                                           t.rate_count, t.rate_period, t.rate_burst, moment) end)::int as room
          from (select f.tenant_id from front f
                 where f.tenant_id is not null and not f.fair and exists (select from jobd.tenants t where t.governed)
                union
                -- Whoever was not among the tenants looked through is under a limit all the same.
                select b.tenant_id from beside b
                 where b.tenant_id is not null and exists (select from jobd.tenants t where t.governed)
                union
                select w.tenant_id from tenant_of w where w.tenant_id is not null) n
         cross join lateral (select t.weight, t.max_running, t.rate_count, t.rate_period, t.rate_burst
                               from jobd.tenants t where t.id = n.tenant_id limit 1) t
          left join (select r.tenant_id, count(*) as number from running r
                      where exists (select from jobd.tenants t where t.governed) group by r.tenant_id) r
            on r.tenant_id = n.tenant_id
    ), share as materialized (
        -- In a fair queue each gets its weight of the room, beginning somewhere within its first turn, or, where there is
        -- no room for a turn of each, by a lottery.
        select w.queue, w.fair, w.tenant_id, coalesce(t.weight, 1) as weight,
               case when w.room < sum(coalesce(t.weight, 1)) over (partition by w.queue) then 1 + ln(1 - random())
                    else random() end as start,
               -- Of each so many are looked at, and in the second look some more: the first ones may all wait for a key.
               greatest(least(w.room, t.room,
                              case when w.fair
                                   then ceil(1.0 * w.room * coalesce(t.weight, 1)
                                             / sum(coalesce(t.weight, 1)) over (partition by w.queue))
                                        * case when deep then 4 else 1 end + case when deep then 100 else 1 end end),
                        case when deep then least(100, 5000 / count(*) over ()) end)::int as room
          from tenant_of w left join of_tenant t on t.tenant_id = w.tenant_id
         where w.tenant_id is not null and coalesce(t.room, 1) > 0
    ), first as materialized (
        select 0::float8 as turn,
               f.place, f.id, f.queue, f.kind, f.tenant_id, f.use_case, f.concurrency_key, f.crashes, f.priority, f.deadline_at
          from front f where not f.fair
        union all
        -- Those without a tenant are one more.
        select row_number() over (partition by f.queue order by f.priority desc, f.deadline_at, f.id) - 0.5,
               f.place, f.id, f.queue, f.kind, f.tenant_id, f.use_case, f.concurrency_key, f.crashes, f.priority, f.deadline_at
          from front f where f.fair and f.tenant_id is null
        union all
        select (c.number - h.start) / h.weight,
               c.place, c.id, c.queue, c.kind, c.tenant_id, c.use_case, c.concurrency_key, c.crashes, c.priority, c.deadline_at
          from share h cross join lateral (
               select row_number() over (order by r.priority desc, r.deadline_at, r.id) as number,
                      r.ctid as place, r.id, r.queue, r.kind, r.tenant_id, r.use_case, r.concurrency_key, r.crashes, r.priority,
                      r.deadline_at
                 from jobd.jobs r
                where r.queue = h.queue and r.tenant_id = h.tenant_id and r.state = 'ready'
                  and r.kind <> all (full_kinds)
                  and (r.deadline_policy = 'run' or r.delay_tolerance is null or r.deadline_at >= moment) and r.ctid <> all (passed)
                order by r.priority desc, r.deadline_at, r.id limit h.room) c
         where h.fair
    ), slice as materialized (
        -- The same where they do not take turns.
        select h.room as most, c.*
          from share h cross join lateral (
               select r.ctid as place, r.id, r.queue, r.kind, r.tenant_id, r.use_case, r.concurrency_key, r.crashes, r.priority, r.deadline_at
                 from jobd.jobs r
                where r.queue = h.queue and r.tenant_id = h.tenant_id and r.state = 'ready'
                  and r.kind <> all (full_kinds)
                  and (r.deadline_policy = 'run' or r.delay_tolerance is null or r.deadline_at >= moment) and r.ctid <> all (passed)
                order by r.priority desc, r.deadline_at, r.id limit h.room) c
         where not h.fair
    ), stuck as materialized (
        -- Tenants of whom only jobs with a key or a use case were seen, which may all wait for one.
        select f.queue, f.tenant_id, count(*) over () as many
          from (select s.queue, s.tenant_id, s.most, s.concurrency_key, s.use_case from slice s
                union all
                select h.queue, h.tenant_id, h.room, f.concurrency_key, f.use_case
                  from share h join first f on f.queue = h.queue and f.tenant_id = h.tenant_id where h.fair) f
         where deep and exists (select from front p where p.queue = f.queue and p.part <> 'keyed')
         group by f.queue, f.tenant_id, f.most
        having count(*) >= f.most and bool_and(f.concurrency_key is not null or f.use_case is not null)
    ), more as materialized (
        select s.place, s.id, s.queue, s.kind, s.tenant_id, s.use_case, s.concurrency_key, s.crashes, s.priority, s.deadline_at
          from slice s
        union
        select c.*
          from stuck t join wanted w on w.queue = t.queue cross join lateral (
               select f.* from (
                      select r.ctid as place, r.id, r.queue, r.kind, r.tenant_id, r.use_case, r.concurrency_key, r.crashes,
                             r.priority, r.deadline_at
                        from jobd.jobs r
                       where r.queue = t.queue and r.tenant_id = t.tenant_id and r.state = 'ready'
                         and r.kind <> all (full_kinds)
                         and (r.deadline_policy = 'run' or r.delay_tolerance is null or r.deadline_at >= moment) and r.ctid <> all (passed)
                       order by r.priority desc, r.deadline_at, r.id limit least(2000, 20000 / t.many)) f
                where f.concurrency_key is null and f.use_case is null limit w.room) c
        union
        -- No index knows who has no tenant: of those that stand a little further behind.
        select c.*
          from behind d cross join lateral (
               select f.* from (
                      select r.ctid as place, r.id, r.queue, r.kind, r.tenant_id, r.use_case, r.concurrency_key, r.crashes,
                             r.priority, r.deadline_at
                        from jobd.jobs r
                       where r.queue = d.queue and r.state = 'ready' and r.crashes = 0
                         and r.concurrency_key is null and r.use_case is null
                         and r.kind <> all (full_kinds)
                         and (r.deadline_policy = 'run' or r.delay_tolerance is null or r.deadline_at >= moment) and r.ctid <> all (passed)
                       order by r.priority desc, r.deadline_at, r.id limit 10000) f
                where f.tenant_id is null limit d.room) c
         where d.fair or exists (select from jobd.tenants t where t.governed)
        union
        select b.* from beside b
    ), found as (
        select f.* from first f
        union all
        -- In a fair queue they come behind those whose turn it is.
        select case when q.fair then 1000000 else 0 end, m.*
          from more m join of_queue q on q.queue = m.queue
         where not exists (select from first f where f.id = m.id)
    ), rated as (
        select f.*,
               case when f.concurrency_key is not null
                    then least(case when k.ordered then 1 else coalesce(k.key_limit, 1) end - coalesce(r.number, 0),
                               case when k.rate_count is not null
                                    then jobd.tokens((select s.spent_until from jobd.rates s
                                                       where s.scope = 'key' and s.name = f.kind || ' ' || f.concurrency_key),
                                                     k.rate_count, k.rate_period, k.rate_burst, moment) end) end as key_room,
               f.concurrency_key is not null and coalesce(k.ordered, false) as ordered,
               case when f.use_case is not null then coalesce(u.max_running, 10) - coalesce(c.number, 0) end as use_case_room,
               t.room as tenant_room,
               p.room - (select count(*) from ours o where o.kind = f.kind) as kind_room
          from found f
          left join jobd.kinds k on k.name = f.kind
          left join (select r.concurrency_key, count(*) as number from running r
                      where r.concurrency_key is not null
                        and (deep or exists (select from first f where f.concurrency_key is not null))
                      group by r.concurrency_key) r
            on r.concurrency_key = f.concurrency_key
          left join jobd.use_cases u on u.name = f.use_case
          left join (select r.use_case, count(*) as number from running r
                      where r.use_case is not null
                        and (deep or exists (select from first f where f.use_case is not null))
                      group by r.use_case) c on c.use_case = f.use_case
          left join of_tenant t on t.tenant_id = f.tenant_id
          left join unnest(claim_governed.kinds, claim_governed.kind_rooms) as p (kind, room) on p.kind = f.kind
    ), open as materialized (
        select f.place, f.id, f.queue, f.kind, f.tenant_id, f.use_case, f.concurrency_key, f.crashes,
               f.key_room, f.use_case_room, f.tenant_room, f.kind_room, f.ordered,
               row_number() over (order by f.turn, f.priority desc, f.deadline_at, f.id) as turn
          from rated f
         where least(f.key_room, f.use_case_room, f.tenant_room, f.kind_room, 1) > 0
           -- A suspect that may not run now takes nobody's room.
           and (f.crashes < claim_governed.suspect_from
                or claim_governed.suspects > (select count(*) from ours o where o.crashes >= claim_governed.suspect_from))
    ), in_turn as materialized (
        select o.* from open o where not o.ordered
        union all
        -- In order: nobody before it is due, and nobody of its key is between two attempts; who is at work has its room.
        -- Only the first of a key is asked for, since it reads all that are before it and not due.
        select o.place, o.id, o.queue, o.kind, o.tenant_id, o.use_case, o.concurrency_key, o.crashes,
               o.key_room, o.use_case_room, o.tenant_room, o.kind_room, o.ordered, o.turn
          from (select o.*, row_number() over (partition by o.concurrency_key order by o.id) as number
                  from open o where o.ordered) o
         where case when o.number = 1
                    then not exists (select from jobd.jobs e
                                      where e.concurrency_key = o.concurrency_key and e.id < o.id
                                        and e.state in ('scheduled', 'ready') and (e.state = 'ready' or e.run_at <= moment))
                     and not exists (select from jobd.jobs e
                                      where e.concurrency_key = o.concurrency_key
                                        and e.state = 'scheduled' and e.claim_no > 0)
                    else false end
    ), by_key as (
        select o.place, o.id, o.queue, o.kind, o.tenant_id, o.use_case, o.concurrency_key, o.crashes,
               o.key_room, o.use_case_room, o.tenant_room, o.kind_room, o.turn
          from in_turn o where o.concurrency_key is null
        union all
        select o.place, o.id, o.queue, o.kind, o.tenant_id, o.use_case, o.concurrency_key, o.crashes,
               o.key_room, o.use_case_room, o.tenant_room, o.kind_room, o.turn
          from (select o.*, row_number() over (partition by o.concurrency_key order by o.turn) as number
                  from in_turn o where o.concurrency_key is not null) o
         where o.number <= o.key_room
    ), limited as materialized (
        -- Whether anything but keys bounds any of them: mostly not.
        select exists (select from by_key o
                        where o.use_case_room is not null or o.tenant_room is not null or o.kind_room is not null
                           or o.crashes >= claim_governed.suspect_from) as further
    ), by_use_case as (
        select o.* from by_key o where o.use_case is null
        union all
        select o.place, o.id, o.queue, o.kind, o.tenant_id, o.use_case, o.concurrency_key, o.crashes,
               o.key_room, o.use_case_room, o.tenant_room, o.kind_room, o.turn
          from (select o.*, row_number() over (partition by o.use_case order by o.turn) as number
                  from by_key o where o.use_case is not null) o
         where o.number <= o.use_case_room
    ), by_tenant as (
        select o.* from by_use_case o where o.tenant_room is null
        union all
        select o.place, o.id, o.queue, o.kind, o.tenant_id, o.use_case, o.concurrency_key, o.crashes,
               o.key_room, o.use_case_room, o.tenant_room, o.kind_room, o.turn
          from (select o.*, row_number() over (partition by o.tenant_id order by o.turn) as number
                  from by_use_case o where o.tenant_room is not null) o
         where o.number <= o.tenant_room
    ), by_kind as (
        select o.* from by_tenant o where o.kind_room is null
        union all
        select o.place, o.id, o.queue, o.kind, o.tenant_id, o.use_case, o.concurrency_key, o.crashes,
               o.key_room, o.use_case_room, o.tenant_room, o.kind_room, o.turn
          from (select o.*, row_number() over (partition by o.kind order by o.turn) as number
                  from by_tenant o where o.kind_room is not null) o
         where o.number <= o.kind_room
    ), by_suspicion as (
        select o.place, o.id, o.queue, o.turn from by_kind o where o.crashes < claim_governed.suspect_from
        union all
        select o.place, o.id, o.queue, o.turn
          from (select o.*, row_number() over (order by o.turn) as number
                  from by_kind o where o.crashes >= claim_governed.suspect_from) o
         where o.number <= claim_governed.suspects
                           - (select count(*) from ours o where o.crashes >= claim_governed.suspect_from)
    ), fit as materialized (
        select o.place, o.id, o.queue, o.turn from by_key o where not (select l.further from limited l)
        union all
        select o.place, o.id, o.queue, o.turn from by_suspicion o where (select l.further from limited l)
    ), by_queue as materialized (
        select o.place, o.queue
          from (select o.*, row_number() over (partition by o.queue order by o.turn) as number from fit o) o
          join of_queue q on q.queue = o.queue
         where o.number <= q.room
    ), verdict as materialized (
        -- Of what was cut short some had no room, or there is room for more than was found.
        select exists (select from cut c join front f on f.queue = c.queue and f.part = c.part
                    where not c.fair and not exists (select from fit o where o.id = f.id))
           or exists (select from wanted w
                       where w.room > (select count(*) from by_queue b where b.queue = w.queue)
                         and (w.queue in (select c.queue from cut c)
                              or w.queue in (select h.queue
                                               from share h join first f on f.queue = h.queue and f.tenant_id = h.tenant_id
                                              where h.fair group by h.queue, h.tenant_id, h.room having count(*) >= h.room))) as deeper
    ), turned as (
        insert into jobd.turns (queue, scope, after)
        select n.queue, n.scope, n.after
          from (select k.queue, 'key' as scope, coalesce(max(k.key) filter (where k.number = 1000), '') as after
                  from key_of k group by k.queue
                union all
                select w.queue, 'tenant', coalesce(max(w.tenant_id) filter (where w.number = 1000), '')
                  from tenant_of w group by w.queue) n
         -- Who is about to look once more, looks at the same.
         where (deep or not (select v.deeper from verdict v))
           and n.after <> coalesce((select t.after from jobd.turns t where t.queue = n.queue and t.scope = n.scope), '')
        on conflict (queue, scope) do update set after = excluded.after
    )
    select array_agg(b.place), (select v.deeper from verdict v)
      into places, deeper
      from by_queue b;
    if deeper and not deep then
        deep := true;
        continue;
    end if;
    return query
    with claimed as (
        -- By their places: whoever was moved meanwhile, or got another key, is no longer there.
        update jobd.jobs j
           set state = 'running', claim_no = j.claim_no + 1, attempt = j.attempt + 1, worker_id = claim_governed.worker_id,
               claimed_at = moment
         where j.ctid = any (array(select r.ctid from jobd.jobs r where r.ctid = any (places) and r.state = 'ready'
                                      for update skip locked))
        returning j.id, j.queue, j.kind, j.tenant_id, j.concurrency_key
    ), spent as (
        insert into jobd.rates (scope, name, spent_until)
        select 'queue', q.name,
               jobd.spent((select s.spent_until from jobd.rates s where s.scope = 'queue' and s.name = q.name), c.starts,
                          q.rate_count, q.rate_period, q.rate_burst, moment)
          from (select t.queue, count(*) as starts from claimed t group by t.queue) c
          join jobd.queues q on q.name = c.queue and q.rate_count is not null
        union all
        select 'tenant', n.id,
               jobd.spent((select s.spent_until from jobd.rates s where s.scope = 'tenant' and s.name = n.id), c.starts,
                          n.rate_count, n.rate_period, n.rate_burst, moment)
          from (select t.tenant_id, count(*) as starts from claimed t
                 where t.tenant_id is not null and exists (select from jobd.tenants n where n.governed)
                 group by t.tenant_id) c
         cross join lateral (select n.id, n.rate_count, n.rate_period, n.rate_burst from jobd.tenants n
                              where n.id = c.tenant_id and n.rate_count is not null limit 1) n
        union all
        select 'key', c.name,
               jobd.spent((select s.spent_until from jobd.rates s where s.scope = 'key' and s.name = c.name), c.starts,
                          k.rate_count, k.rate_period, k.rate_burst, moment)
          from (select t.kind, t.kind || ' ' || t.concurrency_key as name, count(*) as starts from claimed t
                 where t.concurrency_key is not null group by 1, 2) c
          join jobd.kinds k on k.name = c.kind and k.rate_count is not null
        on conflict (scope, name) do update set spent_until = excluded.spent_until
    )
    select c.id from claimed c;
    get diagnostics taken = row_count;
    -- Behind what somebody else holds others may have room: again, without it, and then without all of the front that is.
    rounds := rounds + 1;
    exit when taken = coalesce(cardinality(places), 0) or rounds = 3;
    passed := passed || places;
    continue when rounds = 1;
    places := array(
        select f.place
          from unnest(claim_governed.queues) as u (queue) cross join lateral (
               (select r.ctid as place from jobd.jobs r
                 where r.queue = u.queue and r.state = 'ready' and r.crashes = 0
                   and r.concurrency_key is null and r.use_case is null
                 order by r.priority desc, r.deadline_at, r.id limit 1000)
               union all
               (select r.ctid from jobd.jobs r
                 where r.queue = u.queue and r.state = 'ready' and (r.concurrency_key is not null or r.use_case is not null)
                 order by r.priority desc, r.deadline_at, r.id limit 1000)
               union all
               (select r.ctid from jobd.jobs r
                 where r.queue = u.queue and r.state = 'ready' and r.crashes > 0
                   and r.concurrency_key is null and r.use_case is null
                 order by r.priority desc, r.deadline_at, r.id limit 1000)) f);
    passed := passed || array(
        select p.place from unnest(places) as p (place)
        except
        select f.place from (select r.ctid as place from jobd.jobs r where r.ctid = any (places) for update skip locked) f);
    end loop;
end
$$;

-- The life of a job, in its order, once it is there: how it gets there is in entry.sql. The drawing is in
-- jobd/lifecycle.py.
--
-- `now` is null in production, where the database's clock counts; tests and the simulator pass a time.
-- Every row that leaves `running` carries claim_no + 1, so `id` and `claim_no` together are an exact
-- fence, and no statement about a run asks for `state`: with stale statistics the planner would take
-- the tiny-looking index on running jobs and join all of it.

-- name: stage (batch, now)
-- scheduled -> ready, for jobs that are due, the longest due first. Any number of daemons may stage at
-- once: each skips the rows another has locked. Returns the count; sleeping workers are woken.
with due as (
    update jobd.jobs j
       set state = 'ready'
     where j.id = any (array(
               select id from jobd.jobs
                where state = 'scheduled' and run_at <= coalesce($2::timestamptz, now())
                order by run_at limit $1::int
                  for update skip locked))
    returning j.queue
)
select count(*)::int as staged, jobd.wake(array_agg(distinct queue)) from due

-- name: next_due (now)
-- In how many seconds the next delayed job becomes due, by the database's clock, or null. Reads one row
-- of the index; min(run_at) would read all of it where the statistics say that nothing is scheduled.
select extract(epoch from (select run_at from jobd.jobs where state = 'scheduled' order by run_at limit 1)
                          - coalesce($1::timestamptz, clock_timestamp()))::float8 as seconds

-- name: expire (batch, now)
-- scheduled | ready -> dead, for jobs of policy `drop` whose deadline has passed. The claim passes them
-- over, so none of them starts after its deadline. Returns of which queues and kinds how many.
with late as (
    select j.id from jobd.jobs j
     where j.deadline_policy = 'drop' and j.delay_tolerance is not null and j.state in ('scheduled', 'ready')
       and j.deadline_at < coalesce($2::timestamptz, now())
     order by j.deadline_at limit $1::int
       for update skip locked
), gone as (
    delete from jobd.jobs j using late where j.id = late.id
    returning j, coalesce($2::timestamptz, clock_timestamp()) as at,
              j.queue = any (array(select name from jobd.queues where keep = 'nothing')) as terse
), kept as (
    insert into jobd.job_history
    select h.* from gone g, jobd.ended(g.j, 'dead', 'deadline', null, null, g.at) h
     where not g.terse
), marked as (
    insert into jobd.tombstones select t.* from gone g, jobd.tombstone(g.j, 'dead', g.at) t where g.terse
)
select (j).queue, (j).kind, count(*)::int as expired from gone group by 1, 2

-- name: claim (worker_id, queues, rooms, limited, limited_kinds, skipped_kinds, floor_priorities, floor_deadlines, floor_ids, now)
-- ready -> running. For each entry of queues and rooms at most that many, without the kinds that have
-- a limit unless the entry is `limited`: its room then is what every such kind still has. The lateral form keeps
-- its plan under any statistics. A worker without a live lease gets nothing: its claims would be
-- orphans at once. RETURNING keeps no order: the caller sorts.
--
-- A floor, where there is one, is where the last claim ended: what has a higher priority is looked for from its start,
-- the floor's own priority from there on, and lower ones not at all. Dead index entries before it, which stay
-- while anybody holds an old snapshot, are not read again.
update jobd.jobs j
   set state = 'running', claim_no = j.claim_no + 1, attempt = j.attempt + 1, worker_id = $1::uuid,
       claimed_at = coalesce($10::timestamptz, clock_timestamp())
 where j.id = any (array(
       select picked.id
         from (select u.queue, u.room, u.limited, u.floor_priority, u.floor_deadline, u.floor_id,
                      coalesce(u.floor_priority::bigint + 1, -2147483648) as above
                 from unnest($2::text[], $3::int[], $4::bool[], $7::int[], $8::timestamptz[], $9::uuid[])
                      as u (queue, room, limited, floor_priority, floor_deadline, floor_id)
                where exists (select from jobd.workers w
                               where w.id = $1::uuid and w.lease_until > coalesce($10::timestamptz, now()))
                  and not exists (select from jobd.queues p where p.name = u.queue and (p.paused_at is not null or p.governed))
                  and not exists (select from jobd.tenants t where t.governed)) q
        cross join lateral (
              select both_parts.id
                from (select * from (
                          select r.id from jobd.jobs r
                           where r.queue = q.queue and r.state = 'ready' and r.crashes = 0 and r.priority >= q.above
                             and r.concurrency_key is null and r.use_case is null
                             and r.kind <> all ($6::text[]) and (q.limited or r.kind <> all ($5::text[]))
                             and (r.deadline_policy = 'run' or r.delay_tolerance is null
                                  or r.deadline_at >= coalesce($10::timestamptz, now()))
                           order by r.priority desc, r.deadline_at, r.id
                           limit q.room
                             for update skip locked) above_the_floor
                      union all
                      select * from (
                          select r.id from jobd.jobs r
                           where r.queue = q.queue and r.state = 'ready' and r.crashes = 0
                             and r.priority = q.floor_priority
                             and (r.deadline_at, r.id) >= (q.floor_deadline, q.floor_id)
                             and r.concurrency_key is null and r.use_case is null
                             and r.kind <> all ($6::text[]) and (q.limited or r.kind <> all ($5::text[]))
                             and (r.deadline_policy = 'run' or r.delay_tolerance is null
                                  or r.deadline_at >= coalesce($10::timestamptz, now()))
                           order by r.deadline_at, r.id
                           limit q.room
                             for update skip locked) from_the_floor) both_parts
               limit q.room) picked))
returning j.id, j.claim_no, j.queue, j.kind, j.tenant_id, j.use_case, j.priority, j.run_at, j.deadline_at,
          j.delay_tolerance, j.deadline_policy, j.payload, j.attempt, j.max_attempts, j.crashes, j.generation,
          j.created_at, j.claimed_at, j.backoff, j.timeout, j.headers

-- name: claim_victims (worker_id, queues, rooms, skipped_kinds, suspects, suspect_from, now)
-- ready -> running, for jobs that were running when a worker died: apart, since there are hardly ever any.
-- Of each queue at most as many as its room; of those that were there `suspect_from` times at most
-- `suspects` in all, so that a poison job has no innocent neighbours when it goes for good.
update jobd.jobs j
   set state = 'running', claim_no = j.claim_no + 1, attempt = j.attempt + 1, worker_id = $1::uuid,
       claimed_at = coalesce($7::timestamptz, clock_timestamp())
 where j.id = any (
     array(select again.id
             from (select u.queue, u.room from unnest($2::text[], $3::int[]) as u (queue, room)
                    where exists (select from jobd.workers w
                                   where w.id = $1::uuid and w.lease_until > coalesce($7::timestamptz, now()))
                      and not exists (select from jobd.queues p where p.name = u.queue and (p.paused_at is not null or p.governed))
                  and not exists (select from jobd.tenants t where t.governed)) q
            cross join lateral (
                  select r.id from jobd.jobs r
                   where r.queue = q.queue and r.state = 'ready' and r.crashes > 0 and r.crashes < $6::int
                     and r.concurrency_key is null and r.use_case is null
                     and r.kind <> all ($4::text[])
                     and (r.deadline_policy = 'run' or r.delay_tolerance is null
                          or r.deadline_at >= coalesce($7::timestamptz, now()))
                   order by r.priority desc, r.deadline_at, r.id
                   limit q.room
                     for update skip locked) again)
  || array(select suspect.id
             from (select u.queue from unnest($2::text[], $3::int[]) as u (queue, room)
                    where $5::int > 0 and u.room > 0
                      and exists (select from jobd.workers w
                                   where w.id = $1::uuid and w.lease_until > coalesce($7::timestamptz, now()))
                      and not exists (select from jobd.queues p where p.name = u.queue and (p.paused_at is not null or p.governed))
                  and not exists (select from jobd.tenants t where t.governed)) q
            cross join lateral (
                  select r.id from jobd.jobs r
                   where r.queue = q.queue and r.state = 'ready' and r.crashes > 0 and r.crashes >= $6::int
                     and r.concurrency_key is null and r.use_case is null
                     and r.kind <> all ($4::text[])
                     and (r.deadline_policy = 'run' or r.delay_tolerance is null
                          or r.deadline_at >= coalesce($7::timestamptz, now()))
                   order by r.priority desc, r.deadline_at, r.id
                   limit 1
                     for update skip locked) suspect
            limit $5::int))
returning j.id, j.claim_no, j.queue, j.kind, j.tenant_id, j.use_case, j.priority, j.run_at, j.deadline_at,
          j.delay_tolerance, j.deadline_policy, j.payload, j.attempt, j.max_attempts, j.crashes, j.generation,
          j.created_at, j.claimed_at, j.backoff, j.timeout, j.headers

-- name: claim_governed (worker_id, queues, rooms, kinds, kind_rooms, suspects, suspect_from, now)
-- ready -> running, for jobs under limits that count over all daemons: of a queue, a key, a use case, a tenant. Of
-- each queue at most its room, of each of these kinds at most its own; what may be suspect as above. Returns their ids.
select id from jobd.claim_governed($1::uuid, $2::text[], $3::int[], $4::text[], $5::int[], $6::int, $7::int, $8::timestamptz) as id

-- name: claimed (worker_id, ids)
-- running, unchanged: what a worker needs to run jobs that it has claimed so.
select j.id, j.claim_no, j.queue, j.kind, j.tenant_id, j.use_case, j.priority, j.run_at, j.deadline_at,
       j.delay_tolerance, j.deadline_policy, j.payload, j.attempt, j.max_attempts, j.crashes, j.generation,
       j.created_at, j.claimed_at, j.backoff, j.timeout, j.headers
  from jobd.jobs j where j.id = any ($2::uuid[]) and j.worker_id = $1::uuid

-- name: progress (id, claim_no, progress)
-- running, unchanged. No row: the claim is lost.
update jobd.jobs j set progress = $3::text::jsonb
 where j.id = $1::uuid and j.claim_no = $2::bigint
returning j.id

-- name: succeed (ids, claim_nos, results, now)
-- running -> succeeded.
--
-- Matches only the claims that produced these results. A worker that was taken for dead and rescued gets
-- nothing back for that job; its result is dropped and reported as stale. Returns how many were still
-- ours and, unless that is all of them, which.
with gone as (
    delete from jobd.jobs j using unnest($1::uuid[], $2::bigint[], $3::text[]) as u (id, claim_no, result)
     where j.id = u.id and j.claim_no = u.claim_no
    returning j, u.result, coalesce($4::timestamptz, clock_timestamp()) as at
), kept as (
    insert into jobd.job_history
    select h.* from gone g, jobd.ended(g.j, 'succeeded', null, g.result::jsonb, null, g.at) h
    returning id
)
select count(*) as count, case when count(*) < cardinality($1) then array_agg(id) end as ids from kept

-- name: succeed_tersely (ids, claim_nos, now)
-- running -> succeeded, for queues that keep no successes: a tombstone stays for a day. Otherwise as above.
with gone as (
    delete from jobd.jobs j using unnest($1::uuid[], $2::bigint[]) as u (id, claim_no)
     where j.id = u.id and j.claim_no = u.claim_no
    returning j, coalesce($3::timestamptz, clock_timestamp()) as at
), marked as (
    insert into jobd.tombstones select t.* from gone g, jobd.tombstone(g.j, 'succeeded', g.at) t
    returning id
)
select count(*) as count, case when count(*) < cardinality($1) then array_agg(id) end as ids from marked

-- name: finish (ids, claim_nos, states, reasons, delays, unburned, errors, now)
-- running -> cancelled | dead | scheduled | ready.
--
-- The ends of all runs that did not succeed, fenced as above. Their rows are locked first: a cancel that
-- commits meanwhile is then seen, and ends them `cancelled`. Here as in all that follows, jobs of a queue that
-- keeps nothing leave a tombstone. Returns each id that was still ours with the
-- state it really got, and whether its unique key of scope `waiting` was taken by another job meanwhile: it goes on
-- without one.
with runs as materialized (
    select u.id, u.claim_no, u.delay, u.unburned, u.error, j.unique_for,
           case when j.cancel_requested_at is null then u.state else 'cancelled' end as state,
           case when j.cancel_requested_at is null then u.reason
                else coalesce(j.cancel_reason, 'cancelled on request') end as reason
      from unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::interval[], $6::bool[], $7::text[])
           as u (id, claim_no, state, reason, delay, unburned, error)
      join jobd.jobs j on j.id = u.id and j.claim_no = u.claim_no
     order by j.id
       for update of j
), returned as (
    update jobd.jobs j
       set state = r.state, claim_no = j.claim_no + 1, worker_id = null, claimed_at = null, progress = null,
           attempt = j.attempt - r.unburned::int, errors = jobd.with_error(j.errors, r.error::jsonb),
           run_at = case when r.state = 'scheduled'
                         then coalesce($8::timestamptz, now()) + coalesce(r.delay, '0') else j.run_at end,
           unique_for = case when j.unique_for = 'waiting' then jobd.scope_on_return(j.id, j.unique_key, j.kind, j.tenant_id)
                             else j.unique_for end
      from runs r
     where j.id = r.id and j.claim_no = r.claim_no and r.state in ('scheduled', 'ready')
    returning j.id, j.state, j.queue, r.unique_for = 'waiting' and j.unique_for = 'lost' as key_lost
), gone as (
    delete from jobd.jobs j using runs r
     where j.id = r.id and j.claim_no = r.claim_no and r.state not in ('scheduled', 'ready')
    returning j, r.state, r.reason, r.error, coalesce($8::timestamptz, clock_timestamp()) as at,
              j.queue = any (array(select name from jobd.queues where keep = 'nothing')) as terse
), kept as (
    insert into jobd.job_history
    select h.* from gone g, jobd.ended(g.j, g.state, g.reason, null, g.error::jsonb, g.at) h where not g.terse
), marked as (
    insert into jobd.tombstones select t.* from gone g, jobd.tombstone(g.j, g.state, g.at) t where g.terse
), woken as materialized (
    select jobd.wake(array_agg(distinct queue)) from returned where state = 'ready'
)
select (j).id, state, false as key_lost from gone
union all
select id, state, key_lost from returned cross join woken

-- name: still_ours (ids, claim_nos)
-- Which of these claims are still running: for runs whose finish came back without them.
select j.id from jobd.jobs j join unnest($1::uuid[], $2::bigint[]) as u (id, claim_no) using (id, claim_no)

-- name: release (ids, claim_nos, now)
-- running -> ready | cancelled, unburned: claims that never started here, or whose answer was lost.
-- Returns the ids that were still ours.
with mine as materialized (
    select j.id, j.claim_no, j.cancel_requested_at is not null as cancelled, j.unique_for
      from jobd.jobs j join unnest($1::uuid[], $2::bigint[]) as u (id, claim_no) using (id, claim_no)
     order by j.id
       for update of j
), returned as (
    update jobd.jobs j
       set state = 'ready', claim_no = j.claim_no + 1, worker_id = null, claimed_at = null, progress = null,
           attempt = j.attempt - 1,
           unique_for = case when j.unique_for = 'waiting' then jobd.scope_on_return(j.id, j.unique_key, j.kind, j.tenant_id)
                             else j.unique_for end
      from mine m
     where j.id = m.id and not m.cancelled
    returning j.id, j.queue, m.unique_for = 'waiting' and j.unique_for = 'lost' as key_lost
), gone as (
    delete from jobd.jobs j using mine m where j.id = m.id and m.cancelled
    returning j, coalesce($3::timestamptz, clock_timestamp()) as at,
              j.queue = any (array(select name from jobd.queues where keep = 'nothing')) as terse
), kept as (
    insert into jobd.job_history
    select h.* from gone g,
           jobd.ended(g.j, 'cancelled', coalesce((g.j).cancel_reason, 'cancelled on request'), null, null, g.at) h
     where not g.terse
), marked as (
    insert into jobd.tombstones select t.* from gone g, jobd.tombstone(g.j, 'cancelled', g.at) t where g.terse
), woken as materialized (
    select jobd.wake(array_agg(distinct queue)) from returned
)
select id, key_lost from returned cross join woken union all select (j).id, false from gone

-- name: rescue (batch, crash_limit, now)
-- running -> ready | cancelled | dead, for orphans: jobs whose worker has no row. Lapsed workers lose
-- their row first (`retire`, in sql/fleet.sql), in a transaction of its own, and a row that is gone never
-- comes back, so nothing here can race with a late beat. Who is lost is judged before anything is
-- locked, and locked by that claim: a job that another rescuer put back and a live worker claimed meanwhile
-- has another claim_no, whereas a lock that re-checked `not exists` itself would find no worker. The attempt is given back and the crash
-- is counted; at the crash limit (0: none) the job is dead. Returns each job's id and new state.
with lost as materialized (
    select j.id, j.claim_no from jobd.jobs j
     where j.state = 'running' and not exists (select from jobd.workers w where w.id = j.worker_id)
     order by j.id limit $1::int
), orphans as materialized (
    select j.id, j.cancel_requested_at is not null as cancelled, j.unique_for,
           $2::int > 0 and j.crashes + 1 >= $2::int as dead,
           jsonb_build_object('attempt', j.attempt, 'at', coalesce($3::timestamptz, now()), 'type', 'WorkerLost',
                              'message', 'worker ' || j.worker_id || ' stopped beating while it ran this job',
                              'traceback', null) as error
      from lost l join jobd.jobs j on j.id = l.id and j.claim_no = l.claim_no
     order by j.id
       for update of j skip locked
), returned as (
    update jobd.jobs j
       set state = 'ready', claim_no = j.claim_no + 1, worker_id = null, claimed_at = null, progress = null,
           attempt = j.attempt - 1, crashes = j.crashes + 1, errors = jobd.with_error(j.errors, o.error),
           unique_for = case when j.unique_for = 'waiting' then jobd.scope_on_return(j.id, j.unique_key, j.kind, j.tenant_id)
                             else j.unique_for end
      from orphans o
     where j.id = o.id and not o.cancelled and not o.dead
    returning j.id, j.state, j.queue, o.unique_for = 'waiting' and j.unique_for = 'lost' as key_lost
), counted as (
    delete from jobd.jobs j using orphans o where j.id = o.id and (o.cancelled or o.dead)
    returning j, o.cancelled, o.error, case when o.cancelled then 'cancelled' else 'dead' end as state,
              coalesce($3::timestamptz, clock_timestamp()) as at,
              j.queue = any (array(select name from jobd.queues where keep = 'nothing')) as terse
), kept as (
    insert into jobd.job_history
    select h.* from counted c,
           jobd.ended(c.j, c.state,
                      case when c.cancelled then coalesce((c.j).cancel_reason, 'cancelled on request')
                           else 'crashed: its worker died ' || (c.j).crashes + 1 || ' times while it ran' end,
                      null, c.error, c.at, 1) h
     where not c.terse
), marked as (
    insert into jobd.tombstones select t.* from counted c, jobd.tombstone(c.j, c.state, c.at) t where c.terse
), woken as materialized (
    select jobd.wake(array_agg(distinct queue)) from returned
)
select id, state, key_lost from returned cross join woken union all select (j).id, state, false from counted

-- name: cancel (id, reason, now)
-- scheduled | ready -> cancelled; a running job gets the request instead, which its worker hears by NOTIFY or at
-- its next beat. The row is locked first, so a claim that commits meanwhile is seen and asked.
-- Returns the state found or reached, and no row for an unknown id.
with target as materialized (
    select j.id, j.state from jobd.jobs j where j.id = $1::uuid for update
), gone as (
    delete from jobd.jobs j using target t where j.id = t.id and t.state in ('scheduled', 'ready')
    returning j, coalesce($3::timestamptz, clock_timestamp()) as at,
              j.queue = any (array(select name from jobd.queues where keep = 'nothing')) as terse
), kept as (
    insert into jobd.job_history
    select h.* from gone g, jobd.ended(g.j, 'cancelled', $2::text, null, null, g.at) h where not g.terse
), marked as (
    insert into jobd.tombstones select t.* from gone g, jobd.tombstone(g.j, 'cancelled', g.at) t where g.terse
), asked as (
    update jobd.jobs j
       set cancel_requested_at = coalesce(j.cancel_requested_at, $3::timestamptz, now()),
           cancel_reason = coalesce(j.cancel_reason, $2::text)
      from target t where j.id = t.id and t.state = 'running'
    returning j.state, pg_notify('jobd_cancel', j.id::text)
)
select 'cancelled' as state, true as changed from gone
union all select state, true from asked
union all select h.state, false from jobd.job_history h where h.id = $1::uuid
union all select t.state, false from jobd.tombstones t where t.id = $1::uuid

-- name: retry (id, now)
-- succeeded | cancelled | dead -> ready, by an operator: same id, payload and errors, a new generation,
-- attempts and crashes from 0. Fails with unique_violation while another job holds its unique key; a window is none
-- of its business, being one for new jobs.
-- No row: the id is not in the history; a tombstone has nothing to run again.
with past as (
    delete from jobd.job_history h where h.id = $1::uuid returning h.*
), back as (
    insert into jobd.jobs (id, queue, kind, tenant_id, use_case, state, priority, run_at, deadline_at, delay_tolerance,
                           deadline_policy, payload, max_attempts, generation, claim_no, unique_key, unique_for,
                           concurrency_key, backoff, timeout, errors, headers, created_at)
    select id, queue, kind, tenant_id, use_case, 'ready', priority, coalesce($2::timestamptz, now()),
           coalesce($2::timestamptz, now()) + coalesce(delay_tolerance, '0'), delay_tolerance,
           deadline_policy, payload, max_attempts, generation + 1, claim_no, unique_key,
           case when unique_for = 'waiting'
                then jobd.scope_on_retry(id, unique_key, kind, tenant_id, coalesce($2::timestamptz, clock_timestamp()))
                else unique_for end,
           concurrency_key, backoff, timeout, errors, headers, created_at
      from past
    returning id, queue, generation, headers
), noted as (
    -- Its schedule counts it again.
    update jobd.schedules s set open_jobs = s.open_jobs || b.id, revision = s.revision + 1
      from back b where s.id = b.headers ->> 'schedule' and b.id <> all (s.open_jobs)
)
select generation, jobd.wake(array[queue]) from back

-- name: reschedule (id, run_at, priority, now)
-- scheduled | ready -> scheduled | ready. A time that is null stays as it is, so does a priority. The
-- deadline moves along with the time. No row: the job is not waiting.
update jobd.jobs j
   set run_at = coalesce($2::timestamptz, j.run_at), priority = coalesce($3::int, j.priority),
       deadline_at = case when $2::timestamptz is null then j.deadline_at
                          else $2::timestamptz + coalesce(j.delay_tolerance, '0') end,
       state = case when $2::timestamptz is null then j.state
                    when $2::timestamptz > coalesce($4::timestamptz, now()) then 'scheduled'
                    else 'ready' end
 where j.id = $1::uuid and j.state in ('scheduled', 'ready')
returning j.state, jobd.wake(array[j.queue])

-- name: move (id, queue)
-- scheduled | ready -> scheduled | ready, in another queue. No row: the job is not waiting.
update jobd.jobs j set queue = $2::text
 where j.id = $1::uuid and j.state in ('scheduled', 'ready')
returning j.state, case when j.state = 'ready' then jobd.wake(array[j.queue]) end

-- name: delete (id)
-- scheduled | ready | succeeded | cancelled | dead -> gone, without a trace. A running job stays. No row: unknown
-- id, or running.
with waiting as (
    delete from jobd.jobs j where j.id = $1::uuid and j.state in ('scheduled', 'ready') returning j.id
), past as (
    delete from jobd.job_history h where h.id = $1::uuid returning h.id
), marked as (
    delete from jobd.tombstones t where t.id = $1::uuid returning t.id
)
select id from waiting union all select id from past union all select id from marked

-- name: prune (retention, now)
-- succeeded | cancelled | dead -> gone: names the days of the history that ended longer ago than this, by the
-- database's clock, the days of tombstones that ended a day ago, and whether each is detached already (null: an
-- earlier detach was left half done). The caller detaches and drops, outside a transaction.
select c.relname as name,
       case when i.inhrelid is null then true when i.inhdetachpending then null else false end as detached
  from pg_catalog.pg_class c
  left join pg_catalog.pg_inherits i on i.inhrelid = c.oid
 where c.relnamespace = 'jobd'::regnamespace and c.relkind = 'r'
   -- In a CASE, since the planner may look at other relations' names first.
   and case when c.relname ~ '^(job_history|tombstones)_\d{8}$'
            then to_date(right(c.relname, 8), 'YYYYMMDD') + 1
                 <= ((coalesce($2::timestamptz, now())
                      - case when c.relname like 'tombstones%' then interval '1 day' else $1::interval end)
                     at time zone 'UTC')::date end
 order by c.relname

-- name: prune_keys (batch, now)
-- Forgets unique keys of windows that are over, and of scope `waiting` whose job is no longer there; looks at so many
-- rows, those of jobs that are still there again after twice the time. Locks as weakly as it can: a job that returns
-- meanwhile keeps its key. Returns at how many it looked.
with due as materialized (
    select k.ctid as place, k.job_id, k.scope = 'waiting' and exists (select from jobd.jobs j where j.id = k.job_id) as held
      from jobd.unique_keys k
     where k.until <= coalesce($2::timestamptz, now())
     order by k.until limit $1::int
       for no key update of k skip locked
), kept as (
    update jobd.unique_keys k
       set until = coalesce($2::timestamptz, now()) + greatest(coalesce($2::timestamptz, now()) - k.taken_at, '1 minute')
     where k.ctid = any (array(select place from due where held))
), gone as (
    delete from jobd.unique_keys k where k.ctid = any (array(select place from due where not held))
)
select count(*)::int as looked from due

-- name: prune_rates (batch, now)
-- Forgets what of a rate was spent until an hour ago: a queue, tenant or key without a row has spent nothing. There is no index
-- for it, which each claim under a rate would have to write. Returns how many rows that were.
with over as materialized (
    select r.ctid as place from jobd.rates r
     where r.spent_until < coalesce($2::timestamptz, now()) - interval '1 hour'
     limit $1::int
       for update skip locked
), gone as (
    delete from jobd.rates r where r.ctid = any (array(select place from over)) returning r.scope
)
select count(*)::int as gone from gone

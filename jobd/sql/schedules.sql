-- Schedules and their occurrences. `now` is null in production; see lifecycle.sql. Whoever changes several schedules
-- locks them in the order of their ids.
--
-- A scheduler reads what is due, decides in Python (jobd/occurrences.py), and writes the decision with
-- `fire`, one statement and one transaction, which holds only if the schedule is as it was read and the
-- scheduler still leads.

-- name: put (schedules, replace, since, now)
-- Declare schedules, an array of JSON objects with the columns' names. Returns the ids that stand now as they were
-- given, until when all has been decided, and who else declared them until now.
select schedule_id, decided_until, taken_from
  from jobd.put_schedules($1::text::jsonb, $2::bool, $3::timestamptz, $4::timestamptz)

-- name: disown (owner, ids, now)
-- Pause what this owner declared once and declares no more. Returns the ids.
with gone as materialized (
    select s.id from jobd.schedules s
     where s.owner = $1::text and s.id <> all ($2::text[]) and s.paused_at is null
     order by s.id for no key update
)
update jobd.schedules s
   set paused_at = coalesce($3::timestamptz, clock_timestamp()), paused_by = 'deploy', revision = s.revision + 1
  from gone where s.id = gone.id
returning s.id

-- name: remove (ids)
-- Forget schedules; their occurrences' rows and jobs stay. Returns the ids that were there.
select g.id from unnest($1::text[]) as g (id) where jobd.remove_schedule(g.id)

-- name: remove_prefix (prefix)
-- Forget all schedules whose id begins so.
select r.id from jobd.remove_schedules($1::text) as r (id)

-- name: pause_schedule (id, by, now)
-- No occurrence runs until it is resumed.
select jobd.pause_schedule($1::text, $2::text, $3::timestamptz) as found

-- name: resume_schedule (id, now)
-- Occurrences run again; those during the pause are passed over.
select jobd.resume_schedule($1::text, $2::timestamptz) as found

-- name: trigger (id, job_id, now)
-- nowhere -> ready | scheduled | dead, an occurrence of its own, now, whatever the schedule says and paused or not.
select jobd.trigger_schedule($1::text, $2::uuid, $3::timestamptz) as job_id

-- name: schedule (id)
-- One schedule. No row: there is none of this id.
select * from jobd.schedules where id = $1::text

-- name: schedules (prefix, after, count)
-- Schedules by id, those after `after`.
select * from jobd.schedules
 where starts_with(id, coalesce($1::text, '')) and id > coalesce($2::text, '')
 order by id limit $3::int

-- name: occurrences (id, before, count)
-- The newest occurrences first, with the jobs that they became.
select r.*, j.kind, j.state, j.claimed_at as started_at, j.finished_at, j.reason as job_reason,
       j.errors #> '{-1}' as error
  from jobd.schedule_runs r left join jobd.all_jobs j on j.id = r.job_id
 where r.schedule_id = $1::text and r.fire_at < coalesce($2::timestamptz, 'infinity')
 order by r.fire_at desc limit $3::int

-- name: due (count, now)
-- Schedules to look at, with the ids of their jobs that have not ended, the oldest first. First what is new, then what
-- is least overdue: it waits for no schedule with a long past to catch up with.
select s.*, array(select o.id from unnest(s.open_jobs) with ordinality as o (id, place)
                   where o.id <> all (e.ids) order by o.place) as unfinished,
       greatest(s.last_success_at, e.last_success_at) as succeeded_at
  from (select s.*, t.moment
          from (select coalesce($2::timestamptz, clock_timestamp()) as moment) t
          -- Two walks along the index, which end: the moment is nothing that the planner could guess rows by.
         cross join lateral ((select * from jobd.schedules n
                               where n.due_at <= 'epoch' and n.paused_at is null
                               order by n.due_at limit $1::int)
                             union all
                             (select * from jobd.schedules d
                               where d.due_at > 'epoch' and d.due_at <= t.moment and d.paused_at is null
                               order by d.due_at desc limit $1::int)) s
         order by s.due_at > 'epoch', s.due_at desc limit $1::int) s
 cross join lateral jobd.ended_runs(s.open_jobs) e
 order by s.due_at > 'epoch', s.due_at desc

-- name: settle ()
-- Note which jobs of schedules have ended and succeeded, before the history forgets them. Returns how many schedules.
with ended as materialized (
    select s.id, e.ids, e.last_success_at
      from jobd.schedules s cross join lateral jobd.ended_runs(s.open_jobs) e
     where s.open_jobs <> '{}' and e.ids <> '{}'
     order by s.id for no key update of s skip locked
), settled as (
    update jobd.schedules s
       set open_jobs = array(select o.id from unnest(s.open_jobs) with ordinality as o (id, place)
                              where o.id <> all (e.ids) order by o.place),
           last_success_at = greatest(s.last_success_at, e.last_success_at)
      from ended e where s.id = e.id
    returning 1
)
select count(*)::int as settled from settled

-- name: next_fire (now)
-- In how many seconds a schedule is due; null, none ever.
select extract(epoch from min(due_at) - coalesce($1::timestamptz, clock_timestamp()))::float8 as seconds
  from jobd.schedules where paused_at is null

-- name: tally ()
-- How many schedules there are, by what holds them up.
select case when fault is not null then 'faulty' when paused_at is not null then 'paused'
            when due_at is null then 'ended' else 'active' end as state,
       count(*)::int as number
  from jobd.schedules group by 1

-- name: nearest (count)
-- When those of code and file occur next, `count` of them, the soonest; of all others the soonest as one, without an id.
-- What a scheduler has not looked at yet is left out.
with upcoming as (
    select s.id, s.due_at, s.owner <> 'api' as declared,
           row_number() over (partition by s.owner <> 'api' order by s.due_at, s.id) as place
      from jobd.schedules s
     where s.paused_at is null and s.fault is null and s.due_at > 'epoch'
)
select case when declared and place <= $1::int then id end as id, min(due_at) as due_at from upcoming group by 1

-- name: fire (name, worker_id, term, ids, revisions, untils, dues, faults, run_counts, fired, open_jobs, last_successes, queues, run_schedules, fire_ats, last_ats, counts, outcomes, reasons, job_ids, run_ats, headers, now)
-- nowhere -> scheduled | ready | dead, what was decided: one entry of the first arrays a schedule, one of the others an occurrence or a stretch. Nothing at
-- all unless worker $2 leads in this term; nothing of a schedule that changed since it was read, or that somebody else is changing
-- now: whoever waits here would hold up every schedule. A job for which its tenant has no room ends dead, since nobody
-- is there to be refused, or is delayed. Returns the ids that moved on.
with lead as materialized (
    select l.term from jobd.leader l
     where l.name = $1::text and l.worker_id = $2::uuid and l.term = $3::bigint
       and l.lease_until >= coalesce($23::timestamptz, clock_timestamp())
       for no key update
), same as materialized (
    select u.*
      from jobd.schedules s
      join unnest($4::text[], $5::bigint[], $6::timestamptz[], $7::timestamptz[], $8::text[], $9::int[],
                  $10::timestamptz[], $11::text[], $12::timestamptz[], $13::timestamptz[])
           as u (id, revision, until, due, fault, run_count, fired, open_jobs, succeeded_at, queue) on s.id = u.id
     where s.revision = u.revision and s.paused_at is null and exists (select from lead)
     order by s.id for no key update of s skip locked
), moved as (
    update jobd.schedules s
       set decided_until = u.until, due_at = u.due, fault = u.fault, runs = s.runs + u.run_count,
           last_fire_at = coalesce(u.fired, s.last_fire_at), open_jobs = u.open_jobs::uuid[],
           last_success_at = greatest(s.last_success_at, u.succeeded_at), queued_until = u.queue,
           revision = s.revision + 1
      from same u
     where s.id = u.id
    returning s.id
), decided as (
    insert into jobd.schedule_runs (schedule_id, fire_at, last_at, count, outcome, reason, job_id)
    select u.schedule_id, u.fire_at, u.last_at, u.count, u.outcome, u.reason, u.job_id
      from unnest($14::text[], $15::timestamptz[], $16::timestamptz[], $17::int[], $18::text[], $19::text[], $20::uuid[])
           as u (schedule_id, fire_at, last_at, count, outcome, reason, job_id)
      join moved m on m.id = u.schedule_id
    on conflict do nothing
    returning schedule_id, fire_at, job_id
), made as (
    insert into jobd.jobs (id, queue, kind, tenant_id, use_case, concurrency_key, state, priority, run_at, deadline_at,
                           delay_tolerance, deadline_policy, payload, max_attempts, backoff, timeout, headers, created_at)
    select r.job_id, s.queue, s.kind, s.tenant_id, s.use_case, s.concurrency_key,
           case when r.run_at > t.moment then 'scheduled' else 'ready' end, s.priority, r.run_at,
           r.run_at + coalesce(s.delay_tolerance, q.delay_tolerance, '0'), coalesce(s.delay_tolerance, q.delay_tolerance), s.deadline_policy, s.payload, s.max_attempts,
           s.backoff, s.timeout, coalesce(s.headers, '{}') || r.headers::jsonb, t.moment
      -- Nobody can guess how many have moved: joined to those, the whole batch would be gone through for each of its
      -- rows. What is read here is as it was when its revision was compared.
      from (select d.schedule_id, u.*
              from decided d
              join unnest($20::uuid[], $21::timestamptz[], $22::text[]) as u (job_id, run_at, headers)
                on u.job_id = d.job_id
            offset 0) r
      join jobd.schedules s on s.id = r.schedule_id
      left join jobd.queues q on q.name = s.queue
     cross join (select coalesce($23::timestamptz, clock_timestamp()) as moment) t
    returning id, queue, state, tenant_id
), sifted as materialized (
    select count(jobd.sift(t.tenant_id, t.ids, false, $23::timestamptz))
      from (select tenant_id, array_agg(id order by id) as ids from made
             where tenant_id is not null group by tenant_id order by tenant_id) t
), woken as materialized (
    select jobd.wake(array_agg(distinct queue)) from made where state = 'ready'
)
select m.id from moved m cross join sifted cross join woken

-- name: forget (retention, batch, now)
-- Forget what was decided longer ago than this, by the database's clock, `batch` rows at most. Returns how many.
with gone as (
    delete from jobd.schedule_runs r
     where (r.schedule_id, r.fire_at) in (select o.schedule_id, o.fire_at from jobd.schedule_runs o
                                           where o.decided_at < coalesce($3::timestamptz, now()) - $1::interval
                                          order by o.decided_at limit $2::int)
    returning 1
)
select count(*)::int as pruned from gone

-- Schedules and their occurrences. `now` is null in production; see lifecycle.sql.
--
-- A scheduler reads what is due, decides in Python (jobd/occurrences.py), and writes the decision with
-- `fire`, one statement and one transaction, which holds only if the schedule is as it was read and the
-- scheduler still leads.

-- name: put (schedules, replace, now)
-- Declare schedules, an array of JSON objects with the columns' names. One that is there already stays as it is unless
-- `replace`; its past and the count of its runs go on unless what says when it occurs has changed. What a deploy had
-- paused runs again. Returns the ids that stand now as they were given, and until when all has been decided.
with given as (
    select g.*, greatest(coalesce($3::timestamptz, clock_timestamp()), g.starts_at - interval '1 microsecond') as from_now
      from jsonb_populate_recordset(null::jobd.schedules, $1::text::jsonb) g
)
insert into jobd.schedules as s
       (id, owner, expression, time_zone, dst, seconds, anchor, kind, payload, queue, priority, tenant_id, use_case,
        delay_tolerance, deadline_policy, max_attempts, backoff, timeout, headers, catch_up, cap, stagger, misfire_grace,
        overlap, max_instances, jitter, starts_at, ends_at, max_runs, decided_until)
select id, owner, expression, time_zone, dst, seconds, anchor, kind, payload, queue, priority, tenant_id, use_case,
       delay_tolerance, deadline_policy, max_attempts, backoff, timeout, headers, catch_up, cap, stagger, misfire_grace,
       overlap, max_instances, jitter, starts_at, ends_at, max_runs, from_now
  from given order by id
on conflict (id) do update
   set owner = excluded.owner, expression = excluded.expression, time_zone = excluded.time_zone, dst = excluded.dst,
       seconds = excluded.seconds, anchor = excluded.anchor, kind = excluded.kind, payload = excluded.payload,
       queue = excluded.queue, priority = excluded.priority, tenant_id = excluded.tenant_id,
       use_case = excluded.use_case, delay_tolerance = excluded.delay_tolerance,
       deadline_policy = excluded.deadline_policy, max_attempts = excluded.max_attempts, backoff = excluded.backoff,
       timeout = excluded.timeout, headers = excluded.headers, catch_up = excluded.catch_up, cap = excluded.cap,
       stagger = excluded.stagger, misfire_grace = excluded.misfire_grace, overlap = excluded.overlap,
       max_instances = excluded.max_instances, jitter = excluded.jitter, starts_at = excluded.starts_at,
       ends_at = excluded.ends_at, max_runs = excluded.max_runs, fault = null, due_at = 'epoch',
       decided_until = case when (s.expression, s.time_zone, s.dst, s.seconds, s.anchor, s.starts_at)
                                 is not distinct from
                                 (excluded.expression, excluded.time_zone, excluded.dst, excluded.seconds,
                                  excluded.anchor, excluded.starts_at)
                            then s.decided_until else excluded.decided_until end,
       runs = case when (s.expression, s.time_zone, s.dst, s.seconds, s.anchor, s.starts_at)
                                 is not distinct from
                                 (excluded.expression, excluded.time_zone, excluded.dst, excluded.seconds,
                                  excluded.anchor, excluded.starts_at)
                            then s.runs else 0 end,
       passed_until = case when s.paused_by = 'deploy' then coalesce($3::timestamptz, clock_timestamp())
                           else s.passed_until end,
       paused_at = case when s.paused_by = 'deploy' then null else s.paused_at end,
       paused_by = nullif(s.paused_by, 'deploy'),
       revision = s.revision + 1, changed_at = clock_timestamp()
 where $2::bool
returning id as schedule_id, decided_until, pg_notify('jobd_schedules', '')

-- name: disown (owner, ids, now)
-- Pause what this owner declared once and declares no more. Returns the ids.
update jobd.schedules
   set paused_at = coalesce($3::timestamptz, clock_timestamp()), paused_by = 'deploy', revision = revision + 1
 where owner = $1::text and id <> all ($2::text[]) and paused_at is null
returning id

-- name: remove (ids)
-- Forget schedules; their occurrences' rows and jobs stay. Returns the ids that were there.
delete from jobd.schedules where id = any ($1::text[]) returning id

-- name: remove_prefix (prefix)
-- Forget all schedules whose id begins so.
delete from jobd.schedules where starts_with(id, $1::text) returning id

-- name: pause_schedule (id, by, now)
-- No occurrence runs until it is resumed. No row: there is no such schedule.
update jobd.schedules
   set paused_at = coalesce(paused_at, $3::timestamptz, clock_timestamp()), paused_by = coalesce(paused_by, $2::text),
       revision = revision + 1
 where id = $1::text
returning id

-- name: resume_schedule (id, now)
-- Occurrences run again; those during the pause are passed over. No row: there is no such schedule.
update jobd.schedules
   set passed_until = case when paused_at is null then passed_until else coalesce($2::timestamptz, clock_timestamp()) end,
       due_at = case when due_at is null then null else 'epoch'::timestamptz end,
       paused_at = null, paused_by = null, revision = revision + 1
 where id = $1::text
returning id, pg_notify('jobd_schedules', '')

-- name: trigger (id, job_id, now)
-- nowhere -> ready, an occurrence of its own, now, whatever the schedule says and paused or not. No row: there is no such schedule.
with decided as (
    insert into jobd.schedule_runs (schedule_id, fire_at, last_at, outcome, reason, job_id)
    select s.id, t.moment, t.moment, 'ran', 'triggered', $2::uuid
      from jobd.schedules s cross join (select coalesce($3::timestamptz, clock_timestamp()) as moment) t
     where s.id = $1::text
    returning schedule_id, fire_at, job_id
), made as (
    insert into jobd.jobs (id, queue, kind, tenant_id, use_case, state, priority, run_at, deadline_at, delay_tolerance,
                           deadline_policy, payload, max_attempts, backoff, timeout, headers, created_at)
    select d.job_id, s.queue, s.kind, s.tenant_id, s.use_case, 'ready', s.priority, d.fire_at,
           d.fire_at + coalesce(s.delay_tolerance, '0'), s.delay_tolerance, s.deadline_policy, s.payload, s.max_attempts,
           s.backoff, s.timeout,
           coalesce(s.headers, '{}') || jsonb_build_object('schedule', s.id, 'fire_at', d.fire_at),
           d.fire_at
      from decided d join jobd.schedules s on s.id = d.schedule_id
    returning id, queue
)
select id, jobd.wake(array[queue]) from made

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
select r.*, j.kind, j.state, coalesce(j.claimed_at, j.finished_at) as started_at, j.finished_at, j.reason as job_reason,
       j.errors #> '{-1}' as error
  from jobd.schedule_runs r left join jobd.all_jobs j on j.id = r.job_id
 where r.schedule_id = $1::text and r.fire_at < coalesce($2::timestamptz, 'infinity')
 order by r.fire_at desc limit $3::int

-- name: due (count, now)
-- Schedules to look at, with the ids of their jobs that have not ended, the newest first, and the time of their last
-- success: of their last 20 runs, or as many as may be unfinished at once.
select s.*, t.moment,
       array(select r.job_id from (select r.job_id from jobd.schedule_runs r
                                    where r.schedule_id = s.id and r.job_id is not null
                                    order by r.fire_at desc limit greatest(20, s.max_instances)) r
              where exists (select from jobd.jobs j where j.id = r.job_id)) as unfinished,
       (select max(h.finished_at)
          from (select r.job_id, r.decided_at from jobd.schedule_runs r
                 where r.schedule_id = s.id and r.job_id is not null
                 order by r.fire_at desc limit 20) r
          join jobd.job_history h on h.id = r.job_id and h.finished_at >= r.decided_at
         where h.state = 'succeeded') as last_success_at
  from (select coalesce($2::timestamptz, clock_timestamp()) as moment) t
  join jobd.schedules s on s.due_at <= t.moment and s.paused_at is null
 order by s.due_at limit $1::int

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

-- name: fire (name, worker_id, term, ids, revisions, untils, dues, faults, run_counts, fired, run_schedules, fire_ats, last_ats, counts, outcomes, reasons, job_ids, run_ats, headers, now)
-- nowhere -> scheduled | ready, what was decided: one entry of the first arrays a schedule, one of the others an occurrence or a stretch. Nothing at
-- all unless worker $2 leads in this term; nothing of a schedule that changed since it was read. Returns the ids that moved
-- on.
with lead as materialized (
    select l.term from jobd.leader l
     where l.name = $1::text and l.worker_id = $2::uuid and l.term = $3::bigint
       and l.lease_until >= coalesce($20::timestamptz, clock_timestamp())
       for no key update
), moved as (
    update jobd.schedules s
       set decided_until = u.until, due_at = u.due, fault = u.fault, runs = s.runs + u.run_count,
           last_fire_at = coalesce(u.fired, s.last_fire_at), revision = s.revision + 1
      from unnest($4::text[], $5::bigint[], $6::timestamptz[], $7::timestamptz[], $8::text[], $9::int[], $10::timestamptz[])
           as u (id, revision, until, due, fault, run_count, fired)
     where s.id = u.id and s.revision = u.revision and s.paused_at is null and exists (select from lead)
    returning s.*
), decided as (
    insert into jobd.schedule_runs (schedule_id, fire_at, last_at, count, outcome, reason, job_id)
    select u.schedule_id, u.fire_at, u.last_at, u.count, u.outcome, u.reason, u.job_id
      from unnest($11::text[], $12::timestamptz[], $13::timestamptz[], $14::int[], $15::text[], $16::text[], $17::uuid[])
           as u (schedule_id, fire_at, last_at, count, outcome, reason, job_id)
      join moved m on m.id = u.schedule_id
    on conflict do nothing
    returning schedule_id, fire_at, job_id
), made as (
    insert into jobd.jobs (id, queue, kind, tenant_id, use_case, state, priority, run_at, deadline_at, delay_tolerance,
                           deadline_policy, payload, max_attempts, backoff, timeout, headers, created_at)
    select d.job_id, m.queue, m.kind, m.tenant_id, m.use_case,
           case when u.run_at > t.moment then 'scheduled' else 'ready' end, m.priority, u.run_at,
           u.run_at + coalesce(m.delay_tolerance, '0'), m.delay_tolerance, m.deadline_policy, m.payload, m.max_attempts,
           m.backoff, m.timeout, coalesce(m.headers, '{}') || u.headers::jsonb, t.moment
      from decided d
      join moved m on m.id = d.schedule_id
      join unnest($17::uuid[], $18::timestamptz[], $19::text[]) as u (job_id, run_at, headers) on u.job_id = d.job_id
     cross join (select coalesce($20::timestamptz, clock_timestamp()) as moment) t
    returning queue, state
), woken as materialized (
    select jobd.wake(array_agg(distinct queue)) from made where state = 'ready'
)
select m.id from moved m cross join woken

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

-- Moves of many jobs at once, by their ids: the twins of the blocks of the same verbs in lifecycle.sql, for a
-- batch of at most some hundred rows, so that nothing is locked for long. Which jobs are meant was read before
-- (`matching`, `matching_past`), so each block looks once more whether a job is still where it may be moved from.
--
-- What somebody else has locked is skipped and told as `busy`: to wait for one row while others are locked would
-- hold up claims and finishes. What was changed is counted in the operation's row of jobd.audit, in the
-- same transaction; repeated, a block changes nothing that it has changed before.

-- name: begin_audit (audit_id, who, verb, filter, change)
-- Put down that an operation begins, and forget what is older than 400 days.
with old as (
    delete from jobd.audit a where a.at < now() - interval '400 days'
)
insert into jobd.audit (id, who, verb, filter, change)
values ($1::uuid, $2::text, $3::text, $4::text::jsonb, $5::text::jsonb)
on conflict do nothing

-- name: end_audit (audit_id)
-- Put down that it came to its end.
update jobd.audit a set ended_at = clock_timestamp() where a.id = $1::uuid

-- name: cancel_many (ids, states, reason, audit_id, now)
-- scheduled | ready -> cancelled; running ones get the request instead, those of `states` each. Those that were
-- asked before are left alone, and not counted.
with there as materialized (
    select j.id from jobd.jobs j
     where j.id = any ($1::uuid[])
       and $2::text[] @> array[j.state] and (j.state in ('scheduled', 'ready') or j.cancel_requested_at is null)
), target as materialized (
    select j.id, j.state from jobd.jobs j
     where j.id = any (array(select id from there))
       and $2::text[] @> array[j.state] and (j.state in ('scheduled', 'ready') or j.cancel_requested_at is null)
     order by j.id
       for update skip locked
), gone as (
    delete from jobd.jobs j
     where j.id = any (array(select id from target where state in ('scheduled', 'ready')))
    returning j, coalesce($5::timestamptz, clock_timestamp()) as at,
              j.queue = any (array(select name from jobd.queues where keep = 'nothing')) as terse
), kept as (
    insert into jobd.job_history
    select h.* from gone g, jobd.ended(g.j, 'cancelled', $3::text, null, null, g.at) h where not g.terse
), marked as (
    insert into jobd.tombstones select t.* from gone g, jobd.tombstone(g.j, 'cancelled', g.at) t where g.terse
), asked as (
    update jobd.jobs j
       set cancel_requested_at = coalesce($5::timestamptz, now()), cancel_reason = coalesce(j.cancel_reason, $3::text)
     where j.id = any (array(select id from target where state = 'running'))
    returning pg_notify('jobd_cancel', j.id::text)
), counted as (
    update jobd.audit a set jobs = a.jobs + (select count(*) from target) where a.id = $4::uuid
)
select (select count(*) from target)::int as changed, (select count(*) from asked)::int as asked,
       array(select id from there except select id from target) as busy

-- name: reschedule_many (ids, states, run_at, priority, audit_id, now)
-- scheduled | ready -> scheduled | ready, another time, another priority, or both. Those that have both already
-- are left alone, and not counted.
with there as materialized (
    select j.id from jobd.jobs j
     where j.id = any ($1::uuid[]) and $2::text[] @> array[j.state] and j.state in ('scheduled', 'ready')
       and (j.run_at, j.priority) is distinct from (coalesce($3::timestamptz, j.run_at), coalesce($4::int, j.priority))
), target as materialized (
    select j.id from jobd.jobs j
     where j.id = any (array(select id from there)) and $2::text[] @> array[j.state] and j.state in ('scheduled', 'ready')
     order by j.id
       for no key update skip locked
), moved as (
    update jobd.jobs j
       set run_at = coalesce($3::timestamptz, j.run_at), priority = coalesce($4::int, j.priority),
           deadline_at = case when $3::timestamptz is null then j.deadline_at
                              else $3::timestamptz + coalesce(j.delay_tolerance, '0') end,
           state = case when $3::timestamptz is null then j.state
                        when $3::timestamptz > coalesce($6::timestamptz, now()) then 'scheduled'
                        else 'ready' end
     where j.id = any (array(select id from target))
    returning j.state, j.queue
), counted as (
    update jobd.audit a set jobs = a.jobs + (select count(*) from target) where a.id = $5::uuid
), woken as materialized (
    select jobd.wake(array_agg(distinct queue)) from moved where state = 'ready'
)
select (select count(*) from moved)::int as changed, array(select id from there except select id from target) as busy
  from woken

-- name: move_many (ids, states, queue, audit_id)
-- scheduled | ready -> scheduled | ready, in another queue. Those that are there already are left alone, and not
-- counted.
with there as materialized (
    select j.id from jobd.jobs j
     where j.id = any ($1::uuid[]) and $2::text[] @> array[j.state] and j.state in ('scheduled', 'ready') and j.queue <> $3::text
), target as materialized (
    select j.id from jobd.jobs j
     where j.id = any (array(select id from there)) and $2::text[] @> array[j.state] and j.state in ('scheduled', 'ready')
     order by j.id
       for no key update skip locked
), moved as (
    update jobd.jobs j set queue = $3::text where j.id = any (array(select id from target))
    returning j.state, j.queue
), counted as (
    update jobd.audit a set jobs = a.jobs + (select count(*) from target) where a.id = $4::uuid
), woken as materialized (
    select jobd.wake(array_agg(distinct queue)) from moved where state = 'ready'
)
select (select count(*) from moved)::int as changed, array(select id from there except select id from target) as busy
  from woken

-- name: retry_many (ids, since, until, audit_id, now)
-- succeeded | cancelled | dead -> ready, for jobs that ended from `since` on and before `until`: those bounds keep
-- it to the days in question. A job whose unique key another job holds stays where it is and is
-- told as `held`; one whose key was its own while it waited goes on without it. Keys are taken in their order, so that two of these cannot wait for each other. Jobs of
-- schedules count there again; those of one that somebody has locked are busy. A key that somebody has taken and not
-- committed is waited for no longer than 0.1 s: then this fails, and has changed nothing.
with patience as materialized (
    select set_config('lock_timeout', '100ms', true)
), there as materialized (
    select h.id, h.headers ->> 'schedule' as schedule from jobd.job_history h
     where h.id = any ($1::uuid[]) and h.finished_at >= $2::timestamptz and h.finished_at < $3::timestamptz
), theirs as materialized (
    select s.id from jobd.schedules s
     where s.id = any (array(select distinct schedule from there))
     order by s.id
       for no key update skip locked
), past as materialized (
    select h.* from jobd.job_history h
     where h.id = any (array(
               select t.id from there t
                where t.schedule is null or t.schedule = any (array(select id from theirs))
                   or not exists (select from jobd.schedules s where s.id = t.schedule)))
       and h.finished_at >= $2::timestamptz and h.finished_at < $3::timestamptz
       for update skip locked
), back as (
    insert into jobd.jobs (id, queue, kind, tenant_id, use_case, state, priority, run_at, deadline_at, delay_tolerance,
                           deadline_policy, payload, max_attempts, generation, claim_no, unique_key, unique_for, concurrency_key,
                           backoff, timeout, errors, headers, created_at)
    select id, queue, kind, tenant_id, use_case, 'ready', priority, coalesce($5::timestamptz, now()),
           coalesce($5::timestamptz, now()) + coalesce(delay_tolerance, '0'), delay_tolerance,
           deadline_policy, payload, max_attempts, generation + 1, claim_no, unique_key,
           case when unique_for = 'waiting' then 'lost' else unique_for end, concurrency_key,
           backoff, timeout, errors, headers, created_at
      from past cross join patience order by tenant_id, kind, unique_key collate "C", id
    on conflict do nothing
    returning id, queue, headers ->> 'schedule' as schedule
), noted as (
    update jobd.schedules s
       set open_jobs = s.open_jobs || array(select i from unnest(b.ids) i where i <> all (s.open_jobs) order by i),
           revision = s.revision + 1
      from (select schedule, array_agg(id) as ids from back where schedule is not null group by schedule) b
     where s.id = b.schedule
), gone as (
    delete from jobd.job_history h
     where h.id = any (array(select id from back))
       and h.finished_at >= $2::timestamptz and h.finished_at < $3::timestamptz
), counted as (
    update jobd.audit a set jobs = a.jobs + (select count(*) from back) where a.id = $4::uuid
), woken as materialized (
    select jobd.wake(array_agg(distinct queue)) from back
)
select (select count(*) from back)::int as changed,
       ((select count(*) from past) - (select count(*) from back))::int as held,
       array(select id from there except select id from past) as busy
  from woken

-- name: delete_many (ids, states, audit_id)
-- scheduled | ready -> gone, without a trace.
with there as materialized (
    select j.id from jobd.jobs j where j.id = any ($1::uuid[]) and $2::text[] @> array[j.state] and j.state in ('scheduled', 'ready')
), target as materialized (
    select j.id from jobd.jobs j
     where j.id = any (array(select id from there)) and $2::text[] @> array[j.state] and j.state in ('scheduled', 'ready')
     order by j.id
       for update skip locked
), gone as (
    delete from jobd.jobs j where j.id = any (array(select id from target)) returning j.id
), counted as (
    update jobd.audit a set jobs = a.jobs + (select count(*) from target) where a.id = $3::uuid
)
select (select count(*) from gone)::int as changed, array(select id from there except select id from target) as busy

-- name: delete_past (ids, since, until, audit_id)
-- succeeded | cancelled | dead -> gone, without a trace, for jobs that ended from `since` on and before `until`.
with there as materialized (
    select h.id from jobd.job_history h
     where h.id = any ($1::uuid[]) and h.finished_at >= $2::timestamptz and h.finished_at < $3::timestamptz
), target as materialized (
    select h.id from jobd.job_history h
     where h.id = any (array(select id from there))
       and h.finished_at >= $2::timestamptz and h.finished_at < $3::timestamptz
       for update skip locked
), gone as (
    delete from jobd.job_history h
     where h.id = any (array(select id from target))
       and h.finished_at >= $2::timestamptz and h.finished_at < $3::timestamptz
    returning h.id
), counted as (
    update jobd.audit a set jobs = a.jobs + (select count(*) from target) where a.id = $4::uuid
)
select (select count(*) from gone)::int as changed, array(select id from there except select id from target) as busy

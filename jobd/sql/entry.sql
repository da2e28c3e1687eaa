-- How jobs come in, where their life begins; lifecycle.sql goes on from there. enqueue and enqueue_many are functions
-- (functions.sql, functions_many.sql), so that every language has the same door. `now` is null in production; see lifecycle.sql.

-- name: enqueue (kind, payload, queue, run_at, delay, priority, tenant_id, use_case, unique_key, concurrency_key, delay_tolerance, deadline_policy, max_attempts, backoff, timeout, headers, now, id, unique_for, on_conflict)
-- nowhere -> scheduled | ready | dead. Returns the id that stands for the job, whether this call made it, or replaced
-- payload, time and priority of the one that waits, and whether it ended at once, since its tenant has no room.
select id, created, replaced, shed
  from jobd.enqueue(kind => $1::text, payload => $2::text::jsonb, queue => $3::text, run_at => $4::timestamptz,
                    delay => $5::interval, priority => $6::int, tenant_id => $7::text, use_case => $8::text,
                    unique_key => $9::text, concurrency_key => $10::text, delay_tolerance => $11::interval,
                    deadline_policy => $12::text, max_attempts => $13::int, backoff => $14::text::jsonb,
                    timeout => $15::interval, headers => $16::text::jsonb, now => $17::timestamptz, id => $18::uuid,
                    unique_for => $19::text, on_conflict => $20::text)

-- name: enqueue_new (kind, payload, queue, run_at, delay, priority, tenant_id, use_case, concurrency_key, delay_tolerance, deadline_policy, max_attempts, backoff, timeout, headers, now, id)
-- nowhere -> scheduled | ready, for an id made for this call and without a unique key: no other job can stand
-- for it, so this is `enqueue` without its looks, at a third of the cost. The caller has checked the values.
with made as (
    insert into jobd.jobs (id, queue, kind, tenant_id, use_case, state, priority, run_at, deadline_at, delay_tolerance,
                           deadline_policy, payload, max_attempts, concurrency_key, backoff, timeout, headers, created_at)
    select $17::uuid, $3::text, $1::text, $7::text, $8::text, case when due > moment then 'scheduled' else 'ready' end,
           $6::int, due, due + coalesce($10::interval, '0'), $10::interval, $11::text, $2::text::jsonb, $12::int, $9::text,
           $13::text::jsonb, $14::interval, $15::text::jsonb, moment
      from (select coalesce($16::timestamptz, now()) as moment,
                   coalesce($4::timestamptz, coalesce($16::timestamptz, now()) + coalesce($5::interval, '0')) as due) t
    returning queue, state
)
-- As in jobd.wake, whose call would cost as much as the insert. It looks with the statement's snapshot: who falls
-- asleep while the insert waits is not notified, and finds the job at the next poll.
select pg_notify('jobd_wake', made.queue)
  from made
 where made.state = 'ready'
   and exists (select from jobd.workers w
                where w.sleeping_until > clock_timestamp() and w.lease_until > clock_timestamp()
                  and made.queue = any (w.queues))

-- name: enqueue_of_tenant (kind, payload, queue, run_at, delay, priority, tenant_id, use_case, concurrency_key, delay_tolerance, deadline_policy, max_attempts, backoff, timeout, headers, now, id)
-- nowhere -> scheduled | ready, as `enqueue_new`, for a job of a tenant. The look at its limit stands here, and not in
-- `enqueue_new`, since it costs 6 us where there is none. No row: the tenant has no room, and `enqueue` knows what
-- becomes of the job.
with made as (
    insert into jobd.jobs (id, queue, kind, tenant_id, use_case, state, priority, run_at, deadline_at, delay_tolerance,
                           deadline_policy, payload, max_attempts, concurrency_key, backoff, timeout, headers, created_at)
    select $17::uuid, $3::text, $1::text, $7::text, $8::text, case when due > moment then 'scheduled' else 'ready' end,
           $6::int, due, due + coalesce($10::interval, '0'), $10::interval, $11::text, $2::text::jsonb, $12::int, $9::text,
           $13::text::jsonb, $14::interval, $15::text::jsonb, moment
      from (select coalesce($16::timestamptz, now()) as moment,
                   coalesce($4::timestamptz, coalesce($16::timestamptz, now()) + coalesce($5::interval, '0')) as due) t
     where not exists (select from jobd.tenants n where n.id = $7::text and n.max_pending is not null)
        or jobd.admit($7::text) = 0
    returning queue, state
)
select case when made.state = 'ready'
                 and exists (select from jobd.workers w
                              where w.sleeping_until > clock_timestamp() and w.lease_until > clock_timestamp()
                                and made.queue = any (w.queues))
            then pg_notify('jobd_wake', made.queue) end as woken
  from made

-- name: enqueue_many (kind, payloads, queue, run_at, delay, priority, tenant_id, use_case, delay_tolerance, deadline_policy, max_attempts, backoff, timeout, headers, now, ids, concurrency_keys)
-- nowhere -> scheduled | ready | dead, all or none. Returns how many ended at once, since their tenant has no room.
select count(*) filter (where m.shed) as shed
  from jobd.put_many(kind => $1::text, payloads => $2::text[]::jsonb[], queue => $3::text,
                     run_at => $4::timestamptz, delay => $5::interval, priority => $6::int, tenant_id => $7::text,
                     use_case => $8::text, delay_tolerance => $9::interval, deadline_policy => $10::text,
                     max_attempts => $11::int, backoff => $12::text::jsonb, timeout => $13::interval,
                     headers => $14::text::jsonb, now => $15::timestamptz, ids => $16::text[]::uuid[],
                     unique_keys => null, unique_for => 'unfinished', on_conflict => 'keep',
                     concurrency_keys => $17::text[]) m

-- name: enqueue_keyed (kind, payloads, unique_keys, queue, run_at, delay, priority, tenant_id, use_case, delay_tolerance, deadline_policy, max_attempts, backoff, timeout, headers, now, ids, unique_for, on_conflict, concurrency_keys)
-- nowhere -> scheduled | ready | dead, all or none, each with a unique key of its own. Returns the ids that stand for the jobs,
-- in the order of the payloads, and which ended at once, since their tenant has no room.
select m.id, m.shed
  from jobd.put_many(kind => $1::text, payloads => $2::text[]::jsonb[], unique_keys => $3::text[], queue => $4::text,
                     run_at => $5::timestamptz, delay => $6::interval, priority => $7::int, tenant_id => $8::text,
                     use_case => $9::text, delay_tolerance => $10::interval, deadline_policy => $11::text,
                     max_attempts => $12::int, backoff => $13::text::jsonb, timeout => $14::interval,
                     headers => $15::text::jsonb, now => $16::timestamptz, ids => $17::text[]::uuid[],
                     unique_for => $18::text, on_conflict => $19::text,
                     concurrency_keys => $20::text[]) m

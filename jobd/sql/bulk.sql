-- Many jobs at once by COPY, the fastest way into a table. Everything but id and payload is the same in all
-- of them: the first job goes in by jobd.enqueue_many, which judges it and fills it in, and the server itself says
-- how the rows that follow begin. Columns that are not named here have their defaults.

-- name: copy ()
-- nowhere -> scheduled | ready, for rows that begin like `row_head`; id and payload come last.
copy jobd.jobs (queue, kind, tenant_id, use_case, state, priority, run_at, deadline_at, delay_tolerance, deadline_policy,
                max_attempts, backoff, timeout, headers, created_at, id, payload)
from stdin (format binary)

-- name: copy_keyed ()
-- nowhere -> scheduled | ready, the same for rows that end with a concurrency key each.
copy jobd.jobs (queue, kind, tenant_id, use_case, state, priority, run_at, deadline_at, delay_tolerance, deadline_policy,
                max_attempts, backoff, timeout, headers, created_at, id, payload, concurrency_key)
from stdin (format binary)

-- name: row_head (id, own)
-- How the row of a job like `id` begins in `copy`: the count of columns, and all but the last `own`. In
-- hexadecimal, which every driver gives back as it is. No row without such a job, or where its tenant has a limit of
-- waiting jobs: then each of them is counted, by jobd.enqueue_many.
select encode(int2send((count(*) + $2::int)::int2)
              || string_agg(coalesce(int4send(octet_length(field)) || field, int4send(-1)), '' order by n), 'hex') as head
  from jobd.jobs j
 cross join unnest(array[
           textsend(j.queue), textsend(j.kind), textsend(j.tenant_id), textsend(j.use_case), textsend(j.state),
           int4send(j.priority), timestamptz_send(j.run_at), timestamptz_send(j.deadline_at),
           interval_send(j.delay_tolerance), textsend(j.deadline_policy), int4send(j.max_attempts),
           jsonb_send(j.backoff), interval_send(j.timeout), jsonb_send(j.headers), timestamptz_send(j.created_at)
       ]) with ordinality as fields (field, n)
 where j.id = $1::text::uuid
   and not exists (select from jobd.tenants t where t.id = j.tenant_id and t.max_pending is not null)
having count(*) > 0

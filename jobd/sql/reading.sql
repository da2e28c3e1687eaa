-- What people and tools read. Nothing here is on the hot path, and nothing here writes.

-- name: get (id)
-- One job, waiting, running or finished.
select * from jobd.all_jobs where id = $1::uuid

-- name: state_of (id)
-- Where a job is now, and of which queue if nothing but that is known of it; for waiting on it.
select state, null::text as not_kept_by from jobd.jobs where id = $1::uuid
union all
select state, null from jobd.job_history where id = $1::uuid
union all
select state, queue from jobd.tombstones where id = $1::uuid

-- name: list (state, queue, kind, tenant_id, before, count)
-- The newest jobs first, by id; `before` is the id of the last row of the page before.
select * from jobd.all_jobs
 where ($1::text is null or state = $1::text)
   and ($2::text is null or queue = $2::text)
   and ($3::text is null or kind = $3::text)
   and ($4::text is null or tenant_id = $4::text)
   and ($5::uuid is null or id < $5::uuid)
 order by id desc limit $6::int

-- name: holder (id)
-- The job that holds the unique key which the finished job `id` had.
select coalesce(j.id, k.job_id) as id, h.unique_key
  from jobd.job_history h
  left join jobd.jobs j on (j.tenant_id = h.tenant_id or j.tenant_id is null and h.tenant_id is null) and j.kind = h.kind
        and j.unique_key = h.unique_key and j.unique_for is null and h.unique_for is null
  left join jobd.unique_keys k on k.unique_key = h.unique_key and k.kind = h.kind and k.tenant_id is not distinct from h.tenant_id
        and k.scope = 'waiting' and h.unique_for = 'waiting'
 where h.id = $1::uuid

-- name: depths (now)
-- Live jobs by queue: how many wait, are due, run, and for how long the oldest is ready. One pass over `jobs`.
select coalesce(q.name, live.queue) as queue, coalesce(live.ready, 0) as ready, coalesce(live.scheduled, 0) as scheduled,
       coalesce(live.running, 0) as running,
       greatest(extract(epoch from coalesce($1::timestamptz, now()) - live.oldest), 0)::float8 as oldest_ready_seconds,
       q.paused_at, q.paused_by
  from jobd.queues q
  full join (select queue,
                    count(*) filter (where state = 'ready') as ready,
                    count(*) filter (where state = 'scheduled') as scheduled,
                    count(*) filter (where state = 'running') as running,
                    min(greatest(run_at, created_at)) filter (where state = 'ready') as oldest
               from jobd.jobs group by queue) live on live.queue = q.name
 order by 1

-- name: workers ()
-- Every process with a row, and how many jobs it runs.
select w.*, w.lease_until >= clock_timestamp() as alive,
       (select count(*) from jobd.jobs j where j.worker_id = w.id and j.state = 'running') as running
  from jobd.workers w order by w.started_at

-- name: transaction_status (xid)
-- How a transaction of which the COMMIT's answer was lost has ended: committed, aborted, in progress, or
-- null when it is too old to tell.
select pg_xact_status($1::text::xid8) as status

-- name: schema_version ()
-- To which version the schema was migrated.
select coalesce(max(version), 0) as version from jobd.schema_version

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

-- name: standing (id, now)
-- A waiting or running job, and all that decides when it goes on. Of those ahead of it 10,000 are counted at most; how
-- fast its queue ends jobs is told by the newest 500 of the history.
with j as (select * from jobd.jobs where id = $1::uuid)
select j.id, j.state, j.queue, j.kind, j.tenant_id, j.use_case, j.concurrency_key, j.priority, j.run_at, j.deadline_at,
       j.delay_tolerance, j.deadline_policy, j.attempt, j.crashes, j.claim_no, j.worker_id, j.claimed_at,
       j.cancel_requested_at, (j.errors #> '{-1}')::text as error, t.moment,
       q.paused_at, q.paused_by,
       q.max_running as queue_limit, coalesce(q.fair, false) as fair,
       (select count(*) from jobd.jobs r where r.state = 'running' and r.queue = j.queue)::int as queue_running,
       n.max_running as tenant_limit,
       (select count(*) from jobd.jobs r where r.state = 'running' and r.tenant_id = j.tenant_id)::int as tenant_running,
       case when j.use_case is not null then coalesce(u.max_running, 10) end as use_case_limit,
       (select count(*) from jobd.jobs r where r.state = 'running' and r.use_case = j.use_case)::int as use_case_running,
       case when j.concurrency_key is not null then case when k.ordered then 1 else coalesce(k.key_limit, 1) end end as key_limit,
       coalesce(k.ordered, false) as ordered,
       array(select r.id from jobd.jobs r where r.state = 'running' and r.concurrency_key = j.concurrency_key
              order by r.claimed_at limit 20) as key_running,
       (select r.id from jobd.jobs r
         where k.ordered and r.concurrency_key = j.concurrency_key and r.id <> j.id
           and r.state in ('scheduled', 'ready')
           and (r.state = 'scheduled' and r.claim_no > 0 or r.state = 'ready' and r.id < j.id)
         order by r.id limit 1) as key_before,
       case when jobd.tokens(qs.spent_until, q.rate_count, q.rate_period, q.rate_burst, t.moment) = 0
            then qs.spent_until - (coalesce(q.rate_burst, q.rate_count) - 1) * q.rate_period / q.rate_count end as queue_rate_until,
       case when jobd.tokens(ns.spent_until, n.rate_count, n.rate_period, n.rate_burst, t.moment) = 0
            then ns.spent_until - (coalesce(n.rate_burst, n.rate_count) - 1) * n.rate_period / n.rate_count end as tenant_rate_until,
       case when jobd.tokens(ks.spent_until, k.rate_count, k.rate_period, k.rate_burst, t.moment) = 0
            then ks.spent_until - (coalesce(k.rate_burst, k.rate_count) - 1) * k.rate_period / k.rate_count end as key_rate_until,
       w.host as worker_host, w.pid as worker_pid, w.lease_until as worker_lease_until,
       s.workers, s.serving, s.knowing, s.free,
       (select count(*) from (select from jobd.jobs r
                               where r.queue = j.queue and r.state = 'ready'
                                 and (r.priority > j.priority or r.priority = j.priority and (r.deadline_at, r.id) < (j.deadline_at, j.id))
                               limit 10000) ahead)::int as ahead,
       (select count(*) from (select from jobd.jobs r
                               where r.queue = j.queue and r.state = 'ready' and r.priority > j.priority
                               limit 10000) above)::int as ahead_by_priority,
       (select case when count(*) > 1 then count(*) / nullif(extract(epoch from t.moment - min(h.finished_at)), 0) end
          from (select h.finished_at, h.queue from jobd.job_history h
                 where h.finished_at > t.moment - interval '10 minutes' order by h.id desc limit 500) h
         where h.queue = j.queue)::float8 as ended_per_second
  from j cross join (select coalesce($2::timestamptz, clock_timestamp()) as moment) t
  left join jobd.queues q on q.name = j.queue
  left join jobd.tenants n on n.id = j.tenant_id
  left join jobd.use_cases u on u.name = j.use_case
  left join jobd.kinds k on k.name = j.kind
  left join jobd.rates qs on qs.scope = 'queue' and qs.name = j.queue
  left join jobd.rates ns on ns.scope = 'tenant' and ns.name = j.tenant_id
  left join jobd.rates ks on ks.scope = 'key' and ks.name = j.concurrency_key
  left join jobd.workers w on w.id = j.worker_id
 cross join lateral (
       select count(*)::int as workers, count(*) filter (where j.queue = any (a.queues))::int as serving,
              count(*) filter (where j.queue = any (a.queues) and j.kind = any (a.kinds))::int as knowing,
              coalesce(sum(greatest(a.concurrency - a.running, 0))
                       filter (where j.queue = any (a.queues) and j.kind = any (a.kinds)), 0)::int as free
         from (select a.*, (select count(*) from jobd.jobs r where r.state = 'running' and r.worker_id = a.id) as running
                 from jobd.workers a
                where a.lease_until >= t.moment and a.stopping_at is null and 'worker' = any (a.roles)) a) s

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
select j.id, h.unique_key
  from jobd.job_history h
  left join jobd.jobs j on (j.tenant_id = h.tenant_id or j.tenant_id is null and h.tenant_id is null) and j.kind = h.kind and j.unique_key = h.unique_key
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

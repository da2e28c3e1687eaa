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
              order by r.claimed_at limit 10000) as key_running,
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

-- name: extent ()
-- What there is to look through: each day of the history and the live jobs (`day` is null), with a guess at how many
-- rows those are, made as the planner makes it; and the time now.
select statement_timestamp() as now,
       case when c.relname ~ '^job_history_\d{8}$'
            then to_date(right(c.relname, 8), 'YYYYMMDD')::timestamp at time zone 'UTC' end as day,
       (coalesce(pg_relation_size(c.oid), 0) / current_setting('block_size')::int
        * case when c.reltuples > 0 and c.relpages > 0 then c.reltuples / c.relpages else 10 end)::bigint as rows
  from pg_catalog.pg_class c
  left join pg_catalog.pg_inherits i on i.inhrelid = c.oid
 where c.oid = 'jobd.jobs'::regclass or i.inhparent = 'jobd.job_history'::regclass
 order by 2 nulls last

-- name: matching (start, page, queues, kinds, states, tenants, use_cases, tags, error_types, error, since, until, queue, asked, run_at, priority)
-- Looks at the next `page` live jobs by id, from `start` on, whatever else the table holds: how many those were, where
-- they ended, and which of them match, with their states. Lists mean any of their members. `since` and `until`
-- bound when a job was enqueued; the error is that of its last attempt. Left out are jobs that are in `queue`, were asked to
-- stop if `asked`, or have both this `run_at` and this `priority`; running ones that would match otherwise are counted.
with looked as materialized (
    select j.id, j.state,
           ($3::text[] is null or j.queue = any ($3::text[]))
           and ($4::text[] is null or j.kind = any ($4::text[]))
           and ($6::text[] is null or j.tenant_id = any ($6::text[]))
           and ($7::text[] is null or j.use_case = any ($7::text[]))
           and ($8::text[] is null or j.headers -> 'tags' ?| $8::text[])
           and ($11::timestamptz is null or j.created_at >= $11::timestamptz)
           and j.created_at < $12::timestamptz
           and ($9::text[] is null
                or coalesce(j.errors -> -1 ->> 'type' = any ($9::text[])
                            or substring(j.errors -> -1 ->> 'type' from '[^.]*$') = any ($9::text[]), false))
           and ($10::text is null
                or strpos(lower(concat_ws(': ', j.errors -> -1 ->> 'type', j.errors -> -1 ->> 'message')),
                          lower($10::text)) > 0)
           and ($13::text is null or j.queue <> $13::text)
           and (not coalesce($14::bool, false) or j.cancel_requested_at is null)
           and ($15::timestamptz is null and $16::int is null
                or (j.run_at, j.priority) is distinct from (coalesce($15::timestamptz, j.run_at), coalesce($16::int, j.priority))) as fits
      from jobd.jobs j
     where j.id >= $1::uuid
     order by j.id limit $2::int
), judged as (
    select id, state, fits, fits and ($5::text[] is null or state = any ($5::text[])) as matches from looked
)
select count(*)::int as looked, (select id from looked order by id desc limit 1) as last,
       coalesce(array_agg(id order by id) filter (where matches), '{}') as ids,
       coalesce(array_agg(state order by id) filter (where matches), '{}') as states,
       (count(*) filter (where fits and not matches and state = 'running'))::int as running
  from judged

-- name: matching_past (start, page, queues, kinds, states, tenants, use_cases, tags, error_types, error, since, until)
-- The same for jobs that ended from `since` on and before `until`: a day, so that one partition is read. The
-- reason of the end counts as an error, too.
with looked as materialized (
    select h.id, h.state,
           ($3::text[] is null or h.queue = any ($3::text[]))
           and ($4::text[] is null or h.kind = any ($4::text[]))
           and ($5::text[] is null or h.state = any ($5::text[]))
           and ($6::text[] is null or h.tenant_id = any ($6::text[]))
           and ($7::text[] is null or h.use_case = any ($7::text[]))
           and ($8::text[] is null or h.headers -> 'tags' ?| $8::text[])
           and ($9::text[] is null
                or coalesce(h.errors -> -1 ->> 'type' = any ($9::text[])
                            or substring(h.errors -> -1 ->> 'type' from '[^.]*$') = any ($9::text[]), false))
           and ($10::text is null
                or strpos(lower(concat_ws(': ', h.errors -> -1 ->> 'type', h.errors -> -1 ->> 'message', h.reason)),
                          lower($10::text)) > 0) as matches
      from jobd.job_history h
     where h.id >= $1::uuid and h.finished_at >= $11::timestamptz and h.finished_at < $12::timestamptz
     order by h.id limit $2::int
)
select count(*)::int as looked, (select id from looked order by id desc limit 1) as last,
       coalesce(array_agg(id order by id) filter (where matches), '{}') as ids,
       coalesce(array_agg(state order by id) filter (where matches), '{}') as states
  from looked

-- name: unknown_queues (names)
-- Which of these no process ever served, nobody paused, and no ready job is in.
select n.name from unnest($1::text[]) as n (name)
 where not exists (select from jobd.queues q where q.name = n.name)
   and not exists (select from jobd.jobs j where j.queue = n.name and j.state = 'ready' and j.crashes = 0)

-- name: audits (count)
-- The newest operations on many jobs first.
select a.id, a.at, a.ended_at, a.who, a.verb, a.filter, a.change, a.jobs
  from jobd.audit a order by a.at desc, a.id desc limit $1::int

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

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
   -- By one look into each index: NOT EXISTS would be joined with all of them, and without an order they may be read whole.
   and (select j.id from jobd.jobs j where j.queue = n.name and j.state = 'ready' and j.crashes = 0
           and j.concurrency_key is null and j.use_case is null
         order by j.priority desc, j.deadline_at, j.id limit 1) is null
   and (select j.id from jobd.jobs j where j.queue = n.name and j.state = 'ready'
           and (j.concurrency_key is not null or j.use_case is not null)
         order by j.priority desc, j.deadline_at, j.id limit 1) is null

-- name: audits (count)
-- The newest operations on many jobs first.
select a.id, a.at, a.ended_at, a.who, a.verb, a.filter, a.change, a.jobs
  from jobd.audit a order by a.at desc, a.id desc limit $1::int

-- name: holder (id)
-- The job that holds the unique key which the finished job `id` had.
select coalesce(j.id, k.job_id, n.job_id) as id, h.unique_key
  from jobd.job_history h
  left join jobd.jobs j on (j.tenant_id = h.tenant_id or j.tenant_id is null and h.tenant_id is null) and j.kind = h.kind
        and j.unique_key = h.unique_key and j.unique_for is null and h.unique_for is null
  -- Of the key of a tenant, and of that of none: no index serves a comparison that takes both for the same.
  left join jobd.unique_keys k on k.unique_key = h.unique_key and k.kind = h.kind and k.tenant_id = h.tenant_id
        and k.scope = 'waiting' and h.unique_for = 'waiting'
  left join jobd.unique_keys n on n.unique_key = h.unique_key and n.kind = h.kind and n.tenant_id is null and h.tenant_id is null
        and n.scope = 'waiting' and h.unique_for = 'waiting'
 where h.id = $1::uuid

-- name: depths (now)
-- Live jobs by queue: how many wait, are due, run, and for how long the oldest is ready. One pass over `jobs`.
select coalesce(q.name, live.queue) as queue, coalesce(live.ready, 0) as ready, coalesce(live.scheduled, 0) as scheduled,
       coalesce(live.running, 0) as running,
       case when live.oldest is not null
            then greatest(extract(epoch from coalesce($1::timestamptz, now()) - live.oldest), 0) end::float8 as oldest_ready_seconds,
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

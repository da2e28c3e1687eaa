-- Where a waiting or running job stands. Not on the hot path, and writes nothing.

-- name: standing (id, now)
-- A waiting or running job, and all that decides when it goes on. At most 10,000 of each part of what is ready in its
-- queue are looked at, as a claim does: `ahead` are those that would start before it, `held` those that stand before it but are
-- kept by limits which are not its own, rates left aside. How fast the queue ends jobs is told by the newest 1,000
-- pages of today's history, where rows stand in the order in which jobs ended.
with j as materialized (
    select * from jobd.jobs where id = $1::uuid
), t as materialized (
    select coalesce($2::timestamptz, clock_timestamp()) as moment
), running as materialized (
    select r.id, r.queue, r.kind, r.tenant_id, r.use_case, r.concurrency_key, r.crashes, r.worker_id, r.claimed_at
      from jobd.jobs r where r.state = 'running'
), alive as materialized (
    -- The processes whose lease lasts, those that work and claim, and what each of these runs.
    select a.*, 'worker' = any (a.roles) and a.stopping_at is null as works,
           (select count(*) from running r where r.worker_id = a.id) as runs,
           (select count(*) from running r where r.worker_id = a.id and (r.queue = j.queue or r.kind = j.kind)) as like_it,
           (select count(*) from running r where r.worker_id = a.id and r.crashes >= 2) as suspects
      from jobd.workers a cross join j cross join t where a.lease_until >= t.moment
), front as materialized (
    select f.*
      from (select j.queue, j.tenant_id, coalesce(q.fair, false) as fair
              from j left join jobd.queues q on q.name = j.queue where j.state = 'ready') j
     cross join lateral (
           (select r.id, r.kind, r.tenant_id, r.use_case, r.concurrency_key, r.priority, r.deadline_at, r.deadline_policy,
                   r.delay_tolerance, r.crashes
              from jobd.jobs r
             where not (j.fair and j.tenant_id is not null)
               and r.queue = j.queue and r.state = 'ready' and r.crashes = 0 and r.concurrency_key is null and r.use_case is null
             order by r.priority desc, r.deadline_at, r.id limit 10000)
           union all
           (select r.id, r.kind, r.tenant_id, r.use_case, r.concurrency_key, r.priority, r.deadline_at, r.deadline_policy,
                   r.delay_tolerance, r.crashes
              from jobd.jobs r
             where not (j.fair and j.tenant_id is not null)
               and r.queue = j.queue and r.state = 'ready' and (r.concurrency_key is not null or r.use_case is not null)
             order by r.priority desc, r.deadline_at, r.id limit 10000)
           union all
           (select r.id, r.kind, r.tenant_id, r.use_case, r.concurrency_key, r.priority, r.deadline_at, r.deadline_policy,
                   r.delay_tolerance, r.crashes
              from jobd.jobs r
             where not (j.fair and j.tenant_id is not null)
               and r.queue = j.queue and r.state = 'ready' and r.crashes > 0 and r.concurrency_key is null and r.use_case is null
             order by r.priority desc, r.deadline_at, r.id limit 10000)
           union all
           -- In a fair queue a tenant has a turn of its own. One without is looked for among the first of all.
           (select r.id, r.kind, r.tenant_id, r.use_case, r.concurrency_key, r.priority, r.deadline_at, r.deadline_policy,
                   r.delay_tolerance, r.crashes
              from jobd.jobs r
             where j.fair and r.queue = j.queue and r.tenant_id = j.tenant_id and r.state = 'ready'
             order by r.priority desc, r.deadline_at, r.id limit 10000)) f
     where not j.fair or j.tenant_id is null or f.tenant_id = j.tenant_id
), before as (
    select f.*, j.priority as own,
           row_number() over (partition by f.concurrency_key order by f.priority desc, f.deadline_at, f.id) as key_number,
           row_number() over (partition by f.use_case order by f.priority desc, f.deadline_at, f.id) as use_case_number,
           row_number() over (partition by f.tenant_id order by f.priority desc, f.deadline_at, f.id) as tenant_number,
           row_number() over (partition by f.crashes >= 2 order by f.priority desc, f.deadline_at, f.id) as suspect_number,
           f.concurrency_key is not null and f.concurrency_key is distinct from j.concurrency_key as by_key,
           f.use_case is not null and f.use_case is distinct from j.use_case as by_use_case,
           f.tenant_id is not null and f.tenant_id is distinct from j.tenant_id as by_tenant,
           f.crashes >= 2 and j.crashes < 2 as by_suspicion
      from front f cross join j cross join t
     where (f.priority > j.priority or f.priority = j.priority and (f.deadline_at, f.id) < (j.deadline_at, j.id))
       and (f.deadline_policy = 'run' or f.delay_tolerance is null or f.deadline_at >= t.moment)
       -- In order, the later ones of its key wait for it.
       and (j.concurrency_key is null or f.concurrency_key is distinct from j.concurrency_key or f.id < j.id
            or not exists (select from jobd.kinds k where k.name = j.kind and k.ordered))
       -- As `claim_victims` does it: what was there when a worker died goes first, but under such limits.
       and (j.crashes = 0 or f.crashes > 0 or j.concurrency_key is not null or j.use_case is not null
            or exists (select from jobd.queues q where q.name = j.queue and q.governed)
            or exists (select from jobd.tenants n where n.governed))
), placed as (
    select b.priority > b.own as higher,
           b.by_key and b.key_number > case when k.ordered then 1 else coalesce(k.key_limit, 1) end - coalesce(rk.number, 0)
           or b.by_use_case and b.use_case_number > coalesce(u.max_running, 10) - coalesce(ru.number, 0)
           or b.by_tenant and b.tenant_number > n.max_running - coalesce(rn.number, 0)
           or b.by_suspicion and b.suspect_number > (select count(*) from alive a cross join j
                                                      where a.works and a.suspects = 0 and j.queue = any (a.queues)) as held
      from before b
      left join jobd.kinds k on k.name = b.kind
      left join jobd.use_cases u on u.name = b.use_case
      left join jobd.tenants n on n.id = b.tenant_id
      left join (select concurrency_key, count(*) as number from running group by 1) rk on rk.concurrency_key = b.concurrency_key
      left join (select use_case, count(*) as number from running group by 1) ru on ru.use_case = b.use_case
      left join (select tenant_id, count(*) as number from running group by 1) rn on rn.tenant_id = b.tenant_id
), counted as (
    select count(*) filter (where p.held is not true)::int as ahead,
           count(*) filter (where p.held is not true and p.higher)::int as ahead_by_priority,
           count(*) filter (where p.held)::int as held
      from placed p
), pace as (
    -- Those that ran: what was cancelled or dropped unrun went no faster for having a worker.
    select count(*)::int as ended, min(e.finished_at) as ended_since
      from (select h.finished_at from jobd.job_history h
             where h.finished_at >= (select date_trunc('day', moment at time zone 'UTC') at time zone 'UTC' from t)
               and h.finished_at < (select date_trunc('day', moment at time zone 'UTC') at time zone 'UTC' + interval '1 day' from t)
               and h.finished_at > (select moment - interval '10 minutes' from t)
               and h.ctid >= (select format('(%s,0)', greatest(pg_relation_size(to_regclass(
                                                to_char(moment at time zone 'UTC', '"jobd.job_history_"YYYYMMDD')))
                                            / current_setting('block_size')::int - 1000, 0))::tid from t)
               and h.queue = (select queue from j) and h.claim_no > 0
            union all
            select s.finished_at from jobd.tombstones s
             where s.finished_at >= (select date_trunc('day', moment at time zone 'UTC') at time zone 'UTC' from t)
               and s.finished_at < (select date_trunc('day', moment at time zone 'UTC') at time zone 'UTC' + interval '1 day' from t)
               and s.finished_at > (select moment - interval '10 minutes' from t)
               and s.ctid >= (select format('(%s,0)', greatest(pg_relation_size(to_regclass(
                                                to_char(moment at time zone 'UTC', '"jobd.tombstones_"YYYYMMDD')))
                                            / current_setting('block_size')::int - 1000, 0))::tid from t)
               and s.queue = (select queue from j) and s.claim_no > 0) e
)
select j.id, j.state, j.queue, j.kind, j.tenant_id, j.use_case, j.concurrency_key, j.priority, j.run_at, j.deadline_at,
       j.delay_tolerance, j.deadline_policy, j.attempt, j.crashes, j.claim_no, j.generation, j.worker_id, j.claimed_at,
       j.cancel_requested_at, (j.errors #> '{-1}')::text as error, t.moment,
       q.paused_at, q.paused_by,
       q.max_running as queue_limit, coalesce(q.fair, false) as fair,
       (select count(*) from running r where r.queue = j.queue)::int as queue_running,
       n.max_running as tenant_limit,
       (select count(*) from running r where r.tenant_id = j.tenant_id)::int as tenant_running,
       case when n.on_full = 'delay' then n.max_pending end as tenant_delays_from,
       case when n.on_full = 'delay' then ps.spent_until end as tenant_delays_until,
       case when j.use_case is not null then coalesce(u.max_running, 10) end as use_case_limit,
       (select count(*) from running r where r.use_case = j.use_case)::int as use_case_running,
       case when j.concurrency_key is not null then case when k.ordered then 1 else coalesce(k.key_limit, 1) end end as key_limit,
       coalesce(k.ordered, false) as ordered,
       array(select r.id from running r where r.concurrency_key = j.concurrency_key order by r.claimed_at limit 10000) as key_running,
       b.id as key_before, b.state as key_before_state, b.run_at as key_before_due,
       case when jobd.tokens(qs.spent_until, q.rate_count, q.rate_period, q.rate_burst, t.moment) = 0
            then qs.spent_until - (coalesce(q.rate_burst, q.rate_count) - 1) * q.rate_period / q.rate_count end as queue_rate_until,
       case when jobd.tokens(ns.spent_until, n.rate_count, n.rate_period, n.rate_burst, t.moment) = 0
            then ns.spent_until - (coalesce(n.rate_burst, n.rate_count) - 1) * n.rate_period / n.rate_count end as tenant_rate_until,
       case when jobd.tokens(ks.spent_until, k.rate_count, k.rate_period, k.rate_burst, t.moment) = 0
            then ks.spent_until - (coalesce(k.rate_burst, k.rate_count) - 1) * k.rate_period / k.rate_count end as key_rate_until,
       w.host as worker_host, w.pid as worker_pid, w.beat_at as worker_beat_at, w.lease_until as worker_lease_until,
       w.stopping_at as worker_stopping_at,
       -- Who may judge others was itself confirmed for a whole lease, since the server's start at the earliest.
       (select min(greatest(a.confirmed_since, pg_postmaster_start_time()) + (a.lease_until - a.beat_at))
          from alive a
         where a.stopping_at is null and a.roles && array['worker', 'scheduler'] and a.id is distinct from j.worker_id) as rescue_at,
       s.workers, s.serving, s.knowing, s.free, s.untouched, s.trusting, s.stopping,
       (select max(a.beat_at) from jobd.workers a where 'worker' = any (a.roles)) as beaten_at,
       c.ahead, c.ahead_by_priority, c.held, p.ended, p.ended_since
  from j cross join t cross join counted c cross join pace p
  left join jobd.queues q on q.name = j.queue
  left join jobd.tenants n on n.id = j.tenant_id
  left join jobd.use_cases u on u.name = j.use_case
  left join jobd.kinds k on k.name = j.kind
  left join jobd.rates qs on qs.scope = 'queue' and qs.name = j.queue
  left join jobd.rates ns on ns.scope = 'tenant' and ns.name = j.tenant_id
  left join jobd.rates ks on ks.scope = 'key' and ks.name = j.kind || ' ' || j.concurrency_key
  left join jobd.rates ps on ps.scope = 'pending' and ps.name = j.tenant_id
  left join jobd.workers w on w.id = j.worker_id
  left join lateral (select r.id, r.state, r.run_at from jobd.jobs r
                      where k.ordered and r.concurrency_key = j.concurrency_key and r.id <> j.id
                        and r.state in ('scheduled', 'ready')
                        and (r.state = 'scheduled' and r.claim_no > 0 or r.state = 'ready' and r.id < j.id)
                      order by r.id limit 1) b on true
 cross join (select count(*) filter (where a.works)::int as workers,
                    count(*) filter (where a.works and j.queue = any (a.queues))::int as serving,
                    count(*) filter (where a.works and j.queue = any (a.queues) and j.kind = any (a.kinds))::int as knowing,
                    coalesce(sum(greatest(a.concurrency - a.runs, 0))
                             filter (where a.works and j.queue = any (a.queues) and j.kind = any (a.kinds)), 0)::int as free,
                    count(*) filter (where a.works and j.queue = any (a.queues) and j.kind = any (a.kinds)
                                           and a.like_it = 0)::int as untouched,
                    count(*) filter (where a.works and j.queue = any (a.queues) and j.kind = any (a.kinds)
                                           and a.suspects = 0)::int as trusting,
                    count(*) filter (where 'worker' = any (a.roles) and a.stopping_at is not null)::int as stopping
               from alive a cross join j) s

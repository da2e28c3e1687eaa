-- The processes that share the database: their leases, the leader, queues, and the partitions of the
-- history. `now` is null in production; see lifecycle.sql.

-- name: register (worker_id, host, pid, version, queues, kinds, roles, concurrency, lease, now)
-- A process begins: its row is its lease, and without one it can claim nothing. May be repeated when
-- its answer was lost.
insert into jobd.workers (id, host, pid, version, queues, kinds, roles, concurrency,
                          started_at, beat_at, confirmed_since, lease_until)
select $1::uuid, $2::text, $3::int, $4::text, $5::text[], $6::text[], $7::text[], $8::int,
       t.moment, t.moment, t.moment, t.moment + $9::interval
  from (select coalesce($10::timestamptz, clock_timestamp()) as moment) t
on conflict (id) do update set beat_at = excluded.beat_at, lease_until = excluded.lease_until
returning lease_until

-- name: beat (worker_id, lease, now)
-- Renew the lease, also one that lapsed and that nobody took. No row: the worker was taken for dead and its jobs are
-- no longer its own. `confirmed_since` starts anew after any lapse.
update jobd.workers w
   set beat_at = t.moment, lease_until = t.moment + $2::interval,
       confirmed_since = case when w.lease_until < t.moment then t.moment else w.confirmed_since end
  from (select coalesce($3::timestamptz, clock_timestamp()) as moment) t
 where w.id = $1::uuid
returning w.lease_until

-- name: running_of (worker_id)
-- What the database believes this worker runs, and which of it shall stop.
select id, claim_no, cancel_requested_at is not null as cancel_requested
  from jobd.jobs where worker_id = $1::uuid and state = 'running'

-- name: doze (worker_id, period, now)
-- The worker is about to sleep for work: enqueues within the period notify it.
update jobd.workers set sleeping_until = coalesce($3::timestamptz, clock_timestamp()) + $2::interval
 where id = $1::uuid

-- name: resign (worker_id)
-- A process ends in order. Its row goes last, when none of its jobs runs any more.
delete from jobd.workers where id = $1::uuid

-- name: stopping (worker_id, now)
-- A process has begun to end: it claims nothing more.
update jobd.workers set stopping_at = coalesce($2::timestamptz, clock_timestamp()), sleeping_until = null
 where id = $1::uuid

-- name: retire (worker_id, lease, now)
-- Take the rows of workers whose lease lapsed; `rescue` then finds their jobs without one. Only a worker whose
-- own beats were confirmed for a whole lease may judge, and never within a lease of the
-- server's start: after an outage everybody's lease has lapsed, and nobody is dead. The row is locked and its
-- lease re-checked under the lock, so a beat that commits first wins.
delete from jobd.workers w
 where w.id in (select lapsed.id from jobd.workers lapsed
                 where lapsed.lease_until < coalesce($3::timestamptz, clock_timestamp())
                 order by lapsed.id
                   for update skip locked)
   and w.id <> $1::uuid
   and coalesce($3::timestamptz, clock_timestamp()) >= pg_postmaster_start_time() + $2::interval
   and exists (select from jobd.workers judge
                where judge.id = $1::uuid
                  and judge.lease_until >= coalesce($3::timestamptz, clock_timestamp())
                  and judge.confirmed_since + $2::interval <= coalesce($3::timestamptz, clock_timestamp()))
returning w.id

-- name: next_lapse (worker_id, now)
-- In how many seconds the next lease of another worker ends, or null.
select extract(epoch from min(lease_until) - coalesce($2::timestamptz, clock_timestamp()))::float8 as seconds
  from jobd.workers where id <> $1::uuid

-- name: elect (name, worker_id, lease, now)
-- Take or renew the lead. A change of hands raises the term. No row: another worker leads.
insert into jobd.leader as l (name, worker_id, term, lease_until)
values ($1::text, $2::uuid, 1, coalesce($4::timestamptz, clock_timestamp()) + $3::interval)
on conflict (name) do update
   set worker_id = excluded.worker_id, lease_until = excluded.lease_until,
       term = l.term + (l.worker_id <> excluded.worker_id)::int
 where l.worker_id = excluded.worker_id or l.lease_until < coalesce($4::timestamptz, clock_timestamp())
returning term

-- name: abdicate (name, worker_id)
-- Give the lead up, so that the next election need not wait for the lease.
update jobd.leader set lease_until = '-infinity' where name = $1::text and worker_id = $2::uuid

-- name: proves_lead (name, worker_id, term, now)
-- A leader's own proof before it writes. The row stays locked until the end of the transaction.
select term from jobd.leader
 where name = $1::text and worker_id = $2::uuid and term = $3::bigint
   and lease_until >= coalesce($4::timestamptz, clock_timestamp())
   for no key update

-- name: ensure_partitions (days, now)
-- Make the partitions of the history up to `days` ahead, and those of the tombstones. Returns how many were missing, or -1: another
-- session is at it.
select jobd.ensure_partitions($1::int, $2::timestamptz) as missing

-- name: declare_queues (names, keeps)
-- Queues that this process serves appear in lists and can be paused, and keep of their finished jobs what it
-- says. By name, since two processes that declare the same queues lock them.
insert into jobd.queues (name, keep)
select distinct on (q.name) q.name, q.keep from unnest($1::text[], $2::text[]) as q (name, keep) order by q.name
on conflict (name) do update set keep = excluded.keep where queues.keep <> excluded.keep

-- name: governing (queues)
-- Which of these queues have jobs under limits that count over all daemons, whether any of those wait to run, what each
-- queue weighs, and how often to look, in seconds, so that no rate saves up more than its burst; null without a rate.
with beat as materialized (
    select min(greatest(coalesce(r.rate_burst, r.rate_count) / 2.0, 1) * extract(epoch from r.rate_period) / r.rate_count) as seconds
      from (select k.rate_count, k.rate_period, k.rate_burst from jobd.kinds k where k.rate_count is not null
            union all
            select t.rate_count, t.rate_period, t.rate_burst from jobd.tenants t where t.governed and t.rate_count is not null) r
)
select u.queue, coalesce(q.weight, 1) as weight, w.keyed, q.paused_at is null and (w.keyed or w.plain or w.crashed) as waiting,
       coalesce(q.governed, false) or w.keyed or exists (select from jobd.tenants t where t.governed) as governed,
       least((select b.seconds from beat b),
             greatest(coalesce(q.rate_burst, q.rate_count) / 2.0, 1) * extract(epoch from q.rate_period) / q.rate_count)::float8 as beat
  from unnest($1::text[]) as u (queue)
  left join jobd.queues q on q.name = u.queue
 cross join lateral (
       -- Neither `exists` nor without an order: where the statistics are old the planner would read all that waits.
       select (select true from jobd.jobs r where r.queue = u.queue and r.state = 'ready' and r.crashes = 0
                  and r.concurrency_key is null and r.use_case is null
                order by r.priority desc, r.deadline_at, r.id limit 1) is not null as plain,
              (select true from jobd.jobs r where r.queue = u.queue and r.state = 'ready'
                  and (r.concurrency_key is not null or r.use_case is not null)
                order by r.priority desc, r.deadline_at, r.id limit 1) is not null as keyed,
              (select true from jobd.jobs r where r.queue = u.queue and r.state = 'ready' and r.crashes > 0
                order by r.priority desc, r.deadline_at, r.id limit 1) is not null as crashed) w

-- name: pause (queue, by)
-- No daemon claims from this queue until it is resumed; what runs goes on.
select jobd.pause_queue($1::text, $2::text) as paused_at

-- name: resume (queue, by)
-- The queue is claimed from again. Not found: it was never heard of.
select jobd.resume_queue($1::text, $2::text) as found

-- name: probe (worker_id)
-- A write, for readiness: a read would also succeed on a standby.
update jobd.workers set stopping_at = stopping_at where id = $1::uuid returning id

-- name: notify (channel)
-- For a listener that wants to know whether it hears.
select pg_notify($1::text, '')

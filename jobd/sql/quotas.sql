-- Limits over all daemons, as people say them: of queues, tenants, kinds and use cases. Nothing here is on the hot path.

-- name: set_queue (name, limits, by)
-- Set what is named in this JSON object; null takes a limit away.
select jobd.set_queue($1::text, $2::text::jsonb, $3::text)

-- name: set_tenant (id, limits, by)
-- The same for a tenant.
select jobd.set_tenant($1::text, $2::text::jsonb, $3::text)

-- name: set_kind (name, limits, by)
-- The same for each key of a kind.
select jobd.set_kind($1::text, $2::text::jsonb, $3::text)

-- name: set_use_case (name, limits, by)
-- The same for a use case.
select jobd.set_use_case($1::text, $2::text::jsonb, $3::text)

-- name: remove_tenant (id)
-- Forget a tenant's limits.
select jobd.remove_tenant($1::text) as found

-- name: declare_limits (owner, declared)
-- What code or a settings file says. Returns of how many things something was set.
select jobd.declare_limits($1::text, $2::text::jsonb) as number

-- name: reset_limits (place, name, by)
-- All limits of this are what code and files say of it again. False: nothing was ever said of it.
select jobd.reset_limits($1::text, $2::text, $3::text) as found

-- name: queues (name)
-- Limits of queues, of all or of one, and how many of its jobs run.
select q.name, q.max_running, q.rate_count, q.rate_period, q.rate_burst, q.fair, q.weight, q.delay_tolerance, q.paused_at, q.paused_by,
       q.changed_at, q.changed_by,
       jobd.declared_limits(jobd.declared_by_owner(q.declared, q.declared_by)) as declared, (select count(*) from jobd.jobs r where r.state = 'running' and r.queue = q.name)::int as running
  from jobd.queues q where $1::text is null or q.name = $1::text order by q.name

-- name: tenants (id)
-- Limits of tenants, of all that have any or of one, how many of its jobs run, and how many wait where that is limited.
select t.id, t.max_pending, t.on_full, t.exact, t.max_running, t.rate_count, t.rate_period, t.rate_burst, t.weight, t.changed_at,
       t.changed_by,
       jobd.declared_limits(jobd.declared_by_owner(t.declared, t.declared_by)) as declared, (select count(*) from jobd.jobs r where r.state = 'running' and r.tenant_id = t.id)::int as running,
       case when t.max_pending is not null
            then (select count(*) from jobd.jobs r where r.tenant_id = t.id and r.state in ('scheduled', 'ready'))::int end as pending
  from jobd.tenants t where $1::text is null or t.id = $1::text order by t.id

-- name: kinds (name)
-- Limits of each key of kinds, of all that have any or of one, how many jobs with a key run, and of how many keys.
select k.name, k.key_limit, k.ordered, k.rate_count, k.rate_period, k.rate_burst, k.changed_at, k.changed_by, jobd.declared_limits(jobd.declared_by_owner(k.declared, k.declared_by)) as declared,
       r.running, r.keys
  from jobd.kinds k
 cross join lateral (select count(*)::int as running, count(distinct r.concurrency_key)::int as keys
                       from jobd.jobs r
                      where r.state = 'running' and r.kind = k.name and r.concurrency_key is not null) r
 where $1::text is null or k.name = $1::text order by k.name

-- name: use_cases (name)
-- Limits of use cases, of all of which something is said or of one, and how many of its jobs run.
select u.name, coalesce(u.max_running, 10) as max_running, u.changed_at, u.changed_by, jobd.declared_limits(jobd.declared_by_owner(u.declared, u.declared_by)) as declared,
       (select count(*) from jobd.jobs r where r.state = 'running' and r.use_case = u.name)::int as running
  from jobd.use_cases u where $1::text is null or u.name = $1::text order by u.name

-- name: strange (queues, kinds)
-- Which of these no daemon ever served and nobody said anything of, and what those that are there serve: for misspelt names.
select array(select n.name from unnest($1::text[]) as n (name) where not exists (select from jobd.queues q where q.name = n.name)
                and not exists (select from jobd.workers w where n.name = any (w.queues))
              union all
             select n.name from unnest($2::text[]) as n (name) where not exists (select from jobd.kinds k where k.name = n.name)
                and not exists (select from jobd.workers w where n.name = any (w.kinds))) as strange,
       array(select distinct s.name from jobd.workers w, unnest(w.queues) as s (name) order by s.name) as queues,
       array(select distinct s.name from jobd.workers w, unnest(w.kinds) as s (name) order by s.name) as kinds

-- name: unfinished (queue)
-- How many jobs of a queue run, and whether any are ready, as the partial indexes tell.
select (select count(*) from jobd.jobs r where r.state = 'running' and r.queue = $1::text)::int as running,
       exists (select from jobd.jobs r where r.queue = $1::text and r.state = 'ready' and r.crashes = 0
                  and r.concurrency_key is null and r.use_case is null)
       or exists (select from jobd.jobs r where r.queue = $1::text and r.state = 'ready'
                     and (r.concurrency_key is not null or r.use_case is not null))
       or exists (select from jobd.jobs r where r.queue = $1::text and r.state = 'ready' and r.crashes > 0) as ready

-- The first schema: live jobs, their history by day, workers, queues, the leader.
--
-- `jobs` holds live jobs only; a finished job leaves it for `job_history`, so that its size follows
-- the backlog and never the past. No foreign key, no trigger and no GIN index on either: they are hot.

create table jobd.jobs (
    id                  uuid primary key,
    queue               text not null,
    kind                text not null,
    tenant_id           text,
    use_case            text,
    state               text not null check (state in ('scheduled', 'ready', 'running')),
    priority            integer not null,
    -- Within what every client can represent: a row that cannot be read would block the claim.
    run_at              timestamptz not null check (run_at >= '0001-01-02' and run_at < '9999-01-01'),
    deadline_at         timestamptz not null check (deadline_at >= '0001-01-02' and deadline_at < '9999-01-01'),
    delay_tolerance     interval,
    deadline_policy     text not null check (deadline_policy in ('run', 'drop')),
    payload             jsonb not null,
    attempt             integer not null default 0 check (attempt >= 0),
    max_attempts        integer check (max_attempts > 0),
    crashes             integer not null default 0,
    generation          integer not null default 0,
    claim_no            bigint not null default 0,
    worker_id           uuid,
    claimed_at          timestamptz,
    cancel_requested_at timestamptz,
    cancel_reason       text,
    unique_key          text,
    concurrency_key     text,
    backoff             jsonb,
    timeout             interval,
    errors              jsonb not null default '[]',
    progress            jsonb,
    headers             jsonb,
    created_at          timestamptz not null,
    constraint jobs_running_has_a_worker check ((state = 'running') = (worker_id is not null))
) with (
    fillfactor = 85,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_threshold = -1,
    autovacuum_analyze_scale_factor = 0.2,
    autovacuum_analyze_threshold = 5000,
    autovacuum_vacuum_cost_delay = 1
);

-- The predicates are literals, and every statement repeats them as literals: a generic plan could
-- not use these indexes otherwise.
create index jobs_ready on jobd.jobs (queue, priority desc, deadline_at, id) where state = 'ready' and crashes = 0;
create index jobs_suspect on jobd.jobs (queue, priority desc, deadline_at, id) where state = 'ready' and crashes > 0;
create index jobs_scheduled on jobd.jobs (run_at) where state = 'scheduled';
create index jobs_running on jobd.jobs (worker_id) where state = 'running';
create index jobs_droppable on jobd.jobs (deadline_at)
    where deadline_policy = 'drop' and delay_tolerance is not null and state in ('scheduled', 'ready');
create unique index jobs_unique on jobd.jobs (tenant_id, kind, unique_key) nulls not distinct
    where unique_key is not null;
create index jobs_tenant on jobd.jobs (tenant_id, queue) where tenant_id is not null;

create table jobd.job_history (
    id                  uuid not null,
    queue               text not null,
    kind                text not null,
    tenant_id           text,
    use_case            text,
    state               text not null check (state in ('succeeded', 'cancelled', 'dead')),
    priority            integer not null,
    run_at              timestamptz not null,
    deadline_at         timestamptz not null,
    delay_tolerance     interval,
    deadline_policy     text not null,
    payload             jsonb not null,
    attempt             integer not null,
    max_attempts        integer,
    crashes             integer not null,
    generation          integer not null,
    claim_no            bigint not null,
    worker_id           uuid,
    claimed_at          timestamptz,
    cancel_requested_at timestamptz,
    unique_key          text,
    concurrency_key     text,
    backoff             jsonb,
    timeout             interval,
    errors              jsonb not null,
    progress            jsonb,
    headers             jsonb,
    created_at          timestamptz not null,
    result              jsonb,
    reason              text,
    finished_at         timestamptz not null
) partition by range (finished_at);

create index job_history_id on jobd.job_history (id);

create view jobd.all_jobs as
    select id, queue, kind, tenant_id, use_case, state, null::text as reason, priority, run_at, deadline_at,
           delay_tolerance, deadline_policy, payload, null::jsonb as result, attempt, max_attempts, crashes,
           generation, claim_no, worker_id, created_at, claimed_at, null::timestamptz as finished_at,
           cancel_requested_at, unique_key, concurrency_key, backoff, timeout, errors, progress, headers
      from jobd.jobs
    union all
    select id, queue, kind, tenant_id, use_case, state, reason, priority, run_at, deadline_at,
           delay_tolerance, deadline_policy, payload, result, attempt, max_attempts, crashes,
           generation, claim_no, worker_id, created_at, claimed_at, finished_at,
           cancel_requested_at, unique_key, concurrency_key, backoff, timeout, errors, progress, headers
      from jobd.job_history;

create table jobd.workers (
    id              uuid primary key,
    host            text not null,
    pid             integer not null,
    version         text not null,
    queues          text[] not null,
    kinds           text[] not null,
    roles           text[] not null,
    concurrency     integer not null,
    started_at      timestamptz not null,
    beat_at         timestamptz not null,
    confirmed_since timestamptz not null,
    lease_until     timestamptz not null,
    sleeping_until  timestamptz,
    stopping_at     timestamptz
) with (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

comment on column jobd.workers.confirmed_since is
    'since when every beat came in time; only a worker confirmed for a whole lease may take others for dead';
comment on column jobd.workers.sleeping_until is
    'until then this worker waits for work, so an enqueue notifies it; polling goes on either way';

create table jobd.queues (
    name       text primary key,
    paused_at  timestamptz,
    paused_by  text,
    created_at timestamptz not null default now()
);

create table jobd.leader (
    name        text primary key,
    worker_id   uuid not null,
    term        bigint not null,
    lease_until timestamptz not null
) with (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

-- What is left of a job whose queue does not keep it: enough for waits and repeated enqueues, for a day.
--
-- Partitioned like the history, and as narrow as a row can be that still tells how its job ended.

alter table jobd.queues
    add column keep text not null default 'all' check (keep in ('all', 'errors', 'nothing'));

comment on column jobd.queues.keep is
    'which finished jobs stay in the history, as the worker that registered last has it in [queues.NAME]; '
    'the others leave a tombstone';

create table jobd.tombstones (
    id          uuid not null,
    claim_no    bigint not null,
    finished_at timestamptz not null,
    state       text not null check (state in ('succeeded', 'cancelled', 'dead')),
    queue       text not null,
    kind        text not null,
    tenant_id   text
) partition by range (finished_at);

create index tombstones_id on jobd.tombstones (id);

-- Who may work with the history may work with these, as well: grants name tables, and this one is new.
do $$
declare
    held record;
begin
    for held in
        select a.privilege_type, case when a.grantee = 0 then 'public' else quote_ident(r.rolname) end as role
          from pg_class c cross join aclexplode(c.relacl) a left join pg_roles r on r.oid = a.grantee
         where c.oid = 'jobd.job_history'::regclass and a.grantee <> c.relowner
    loop
        execute format('grant %s on jobd.tombstones to %s', held.privilege_type, held.role);
    end loop;
end
$$;

create or replace view jobd.all_jobs as
    select id, queue, kind, tenant_id, use_case, state, null::text as reason, priority, run_at, deadline_at,
           delay_tolerance, deadline_policy, payload, null::jsonb as result, attempt, max_attempts, crashes,
           generation, claim_no, worker_id, created_at, claimed_at, null::timestamptz as finished_at,
           cancel_requested_at, unique_key, concurrency_key, backoff, timeout, errors, progress, headers,
           true as kept
      from jobd.jobs
    union all
    select id, queue, kind, tenant_id, use_case, state, reason, priority, run_at, deadline_at,
           delay_tolerance, deadline_policy, payload, result, attempt, max_attempts, crashes,
           generation, claim_no, worker_id, created_at, claimed_at, finished_at,
           cancel_requested_at, unique_key, concurrency_key, backoff, timeout, errors, progress, headers,
           true
      from jobd.job_history
    union all
    select id, queue, kind, tenant_id, null, state,
           'not kept: queue ' || queue || ' keeps ' || case state when 'succeeded' then 'no successes' else 'nothing' end,
           null, null, null, null, null, null, null, null, null, null,
           null, claim_no, null, null, null, finished_at,
           null, null, null, null, null, '[]', null, null,
           false
      from jobd.tombstones;

-- Unique keys that are held for another time than until the end of their job.
--
-- A key of scope `unfinished` stays in the index `jobs_unique`, as before. One of scope `waiting`, or for a window
-- of time, is held by the job that `unique_keys` names: see sql/functions_unique.sql.

alter table jobd.jobs add column unique_for text;
alter table jobd.job_history add column unique_for text;

comment on column jobd.jobs.unique_for is
    'how long the unique key is held: null, until the job has ended; waiting, until it is claimed; lost, no longer: another '
    'job took it while this one ran; else the window after the enqueue';

drop index jobd.jobs_unique;
create unique index jobs_unique on jobd.jobs (tenant_id, kind, unique_key) nulls not distinct
    where unique_key is not null and unique_for is null;

create table jobd.unique_keys (
    unique_key text not null,
    kind       text not null,
    tenant_id  text,
    scope      text not null check (scope in ('waiting', 'window')),
    job_id     uuid not null,
    taken_at   timestamptz not null,
    until      timestamptz not null
) with (fillfactor = 70, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.1);

create unique index unique_keys_key on jobd.unique_keys (unique_key, kind, tenant_id, scope) nulls not distinct;
create index unique_keys_until on jobd.unique_keys (until);

comment on table jobd.unique_keys is
    'who took a key last; of scope waiting it holds it while it waits, of scope window until `until`';
comment on column jobd.unique_keys.until is
    'window: the end of it; waiting: not before then it is looked whether the job is still there';

-- Who may work with the jobs may work with these, as well: grants name tables, and this one is new.
do $$
declare
    held record;
begin
    for held in
        select a.privilege_type, case when a.grantee = 0 then 'public' else quote_ident(r.rolname) end as role
          from pg_class c cross join aclexplode(c.relacl) a left join pg_roles r on r.oid = a.grantee
         where c.oid = 'jobd.jobs'::regclass and a.grantee <> c.relowner
    loop
        execute format('grant %s on jobd.unique_keys to %s', held.privilege_type, held.role);
    end loop;
end
$$;

create or replace view jobd.all_jobs as
    select id, queue, kind, tenant_id, use_case, state, null::text as reason, priority, run_at, deadline_at,
           delay_tolerance, deadline_policy, payload, null::jsonb as result, attempt, max_attempts, crashes,
           generation, claim_no, worker_id, created_at, claimed_at, null::timestamptz as finished_at,
           cancel_requested_at, unique_key, concurrency_key, backoff, timeout, errors, progress, headers,
           true as kept, unique_for
      from jobd.jobs
    union all
    select id, queue, kind, tenant_id, use_case, state, reason, priority, run_at, deadline_at,
           delay_tolerance, deadline_policy, payload, result, attempt, max_attempts, crashes,
           generation, claim_no, worker_id, created_at, claimed_at, finished_at,
           cancel_requested_at, unique_key, concurrency_key, backoff, timeout, errors, progress, headers,
           true, unique_for
      from jobd.job_history
    union all
    select id, queue, kind, tenant_id, null, state,
           'not kept: queue ' || queue || ' keeps ' || case state when 'succeeded' then 'no successes' else 'nothing' end,
           null, null, null, null, null, null, null, null, null, null,
           null, claim_no, null, null, null, finished_at,
           null, null, null, null, null, '[]', null, null,
           false, null
      from jobd.tombstones;

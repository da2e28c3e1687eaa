-- Schedules, and what became of each of their occurrences.
--
-- `decided_until` is the whole state of a schedule: every occurrence up to it has a row in
-- `schedule_runs`, or lies within the stretch of one, and none after it has. `due_at` only says when a
-- scheduler has to look again.

create table jobd.schedules (
    id              text primary key check (length(id) between 1 and 200),
    owner           text not null,
    expression      text not null,
    time_zone       text not null default 'UTC',
    dst             text not null default 'debian' check (dst in ('debian', 'skip', 'both')),
    seconds         text check (seconds in ('first', 'last')),
    anchor          timestamptz,
    kind            text not null,
    payload         jsonb not null default '{}',
    queue           text not null default 'default',
    priority        integer not null default 0,
    tenant_id       text,
    use_case        text,
    delay_tolerance interval,
    deadline_policy text not null default 'run' check (deadline_policy in ('run', 'drop')),
    max_attempts    integer check (max_attempts > 0),
    backoff         jsonb,
    timeout         interval,
    headers         jsonb,
    catch_up        text not null default 'last' check (catch_up in ('last', 'skip', 'all')),
    cap             integer not null default 100 check (cap between 1 and 1000),
    stagger         interval not null default '0',
    misfire_grace   interval,
    overlap         text not null default 'skip' check (overlap in ('skip', 'queue', 'replace')),
    max_instances   integer not null default 1 check (max_instances > 0),
    jitter          interval not null default '0',
    starts_at       timestamptz,
    ends_at         timestamptz,
    max_runs        integer check (max_runs > 0),
    paused_at       timestamptz,
    paused_by       text,
    fault           text,
    runs            integer not null default 0,
    decided_until   timestamptz not null,
    passed_until    timestamptz,
    due_at          timestamptz default 'epoch',
    last_fire_at    timestamptz,
    revision        bigint not null default 1,
    created_at      timestamptz not null default clock_timestamp(),
    changed_at      timestamptz not null default clock_timestamp()
) with (fillfactor = 70, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0.1);

create index schedules_due on jobd.schedules (due_at) where paused_at is null;

comment on column jobd.schedules.owner is
    'who declares it: code, file, or api; what its owner no longer declares is paused by ''deploy''';
comment on column jobd.schedules.due_at is
    'when a scheduler has to look at it; null, never again';
comment on column jobd.schedules.passed_until is
    'what occurs until then is passed over: it was paused meanwhile';
comment on column jobd.schedules.fault is
    'why no occurrence can be computed; a change of the schedule clears it';

create table jobd.schedule_runs (
    schedule_id text not null,
    fire_at     timestamptz not null,
    last_at     timestamptz not null,
    count       integer not null default 1,
    outcome     text not null check (outcome in ('ran', 'skipped', 'missed')),
    reason      text,
    job_id      uuid,
    decided_at  timestamptz not null default clock_timestamp(),
    primary key (schedule_id, fire_at)
);

create index schedule_runs_age on jobd.schedule_runs (decided_at);

comment on table jobd.schedule_runs is
    'one row an occurrence; those that were missed in a row are one, from fire_at to last_at';

-- Who may work with the jobs may work with these, as well: grants name tables, and these are new.
do $$
declare
    held record;
begin
    for held in
        select a.privilege_type, case when a.grantee = 0 then 'public' else quote_ident(r.rolname) end as role
          from pg_class c cross join aclexplode(c.relacl) a left join pg_roles r on r.oid = a.grantee
         where c.oid = 'jobd.jobs'::regclass and a.grantee <> c.relowner
    loop
        execute format('grant %s on jobd.schedules, jobd.schedule_runs to %s', held.privilege_type, held.role);
    end loop;
end
$$;

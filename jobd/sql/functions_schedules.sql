-- The functions of schema jobd for schedules; see functions.sql. Those to add, remove, pause, resume and trigger one are
-- the door for every language.

create or replace function jobd.ended_runs(jobs uuid[], out ids uuid[], out last_success_at timestamptz) returns setof record
language sql stable
as $$
    -- Those of these jobs that have ended, and when the last of them succeeded that the history still knows.
    select coalesce(array_agg(o.id), '{}'), max(past.finished_at) filter (where past.state = 'succeeded')
      from unnest(jobs) as o (id)
      left join lateral (select h.finished_at, h.state from jobd.job_history h
                          where h.id = o.id and h.finished_at >= jobd.uuid7_at(o.id) - interval '1 day'
                         union all
                         select t.finished_at, t.state from jobd.tombstones t
                          where t.id = o.id and t.finished_at >= jobd.uuid7_at(o.id) - interval '1 day') past on true
     -- One look by the key for each: as a join it would read all jobs for each schedule.
     where (select j.id from jobd.jobs j where j.id = o.id) is null
$$;

create or replace function jobd.same_times(one jobd.schedules, other jobd.schedules) returns boolean
language sql immutable parallel safe
as $$
    -- Whether both occur at the same moments, apart from when they start and end.
    select (one.expression, one.time_zone, one.dst, one.seconds, one.anchor)
           is not distinct from
           (other.expression, other.time_zone, other.dst, other.seconds, other.anchor)
$$;

create or replace function jobd.declaration(schedule jobd.schedules) returns jsonb
language sql stable parallel safe
as $$
    -- What is declared of a schedule, without what becomes of it.
    select to_jsonb(schedule) - array['paused_at', 'paused_by', 'fault', 'runs', 'decided_until', 'passed_until', 'due_at',
                                      'last_fire_at', 'revision', 'created_at', 'changed_at', 'open_jobs', 'last_success_at',
                                      'queued_until', 'passed_from']
$$;

create or replace function jobd.put_schedules(schedules jsonb, replace boolean, since timestamptz default null,
                                              now timestamptz default null)
returns table (schedule_id text, decided_until timestamptz, taken_from text)
language plpgsql volatile
as $$
-- Declare schedules, an array of objects with the columns' names. One that is there already stays as it is unless
-- `replace`; its past and the count of its runs go on unless what says when it occurs has changed. What a deploy had
-- paused runs again. New ones occur after `since`, where that is before now. Returns the ids that stand now as they
-- were given, until when all has been decided, and who declared them until now, if that was somebody else.
-- What code or file declare stays theirs, whoever changes it at run time.
#variable_conflict use_column
declare
    moment  timestamptz := coalesce(put_schedules.now, clock_timestamp());
    others  jsonb;
    changed text[];
begin
    select coalesce(jsonb_object_agg(s.id, s.owner), '{}') into others
      from jsonb_array_elements(put_schedules.schedules) g join jobd.schedules s on s.id = g ->> 'id'
     where 'api' not in (s.owner, g ->> 'owner') and s.owner <> g ->> 'owner' and s.paused_by is distinct from 'deploy';
    if exists (select from jsonb_array_elements(put_schedules.schedules) g where g ->> 'owner' <> 'api') then
        -- A start does not wait for somebody who holds one of them in a transaction; it declares again.
        perform set_config('lock_timeout', '2s', true);
    end if;
    with given as (
        -- What is as it was declared is not touched, nor locked.
        select g.* from jsonb_populate_recordset(null::jobd.schedules, put_schedules.schedules) g
         where not exists (select from jobd.schedules s
                            where s.id = g.id and s.fault is null and s.paused_by is distinct from 'deploy'
                              and jobd.declaration(s) = jobd.declaration(g))
    ), put as (
        insert into jobd.schedules as s
               (id, owner, expression, time_zone, dst, seconds, anchor, kind, payload, queue, priority, tenant_id, use_case,
                concurrency_key, delay_tolerance, deadline_policy, max_attempts, backoff, timeout, headers, catch_up, cap, stagger,
                misfire_grace, overlap, max_instances, jitter, starts_at, ends_at, max_runs, decided_until)
        select id, owner, expression, time_zone, dst, seconds, anchor, kind, coalesce(payload, 'null'), queue, priority, tenant_id, use_case,
               concurrency_key, delay_tolerance, deadline_policy, max_attempts, backoff, timeout, headers, catch_up, cap, stagger,
               misfire_grace, overlap, max_instances, jitter, starts_at, ends_at, max_runs,
               greatest(least(moment, put_schedules.since), starts_at - interval '1 microsecond')
          from given order by id
        on conflict (id) do update
           set owner = case when excluded.owner = 'api' then s.owner else excluded.owner end, expression = excluded.expression, time_zone = excluded.time_zone, dst = excluded.dst,
               seconds = excluded.seconds, anchor = excluded.anchor, kind = excluded.kind, payload = excluded.payload,
               queue = excluded.queue, priority = excluded.priority, tenant_id = excluded.tenant_id,
               use_case = excluded.use_case, concurrency_key = excluded.concurrency_key, delay_tolerance = excluded.delay_tolerance,
               deadline_policy = excluded.deadline_policy, max_attempts = excluded.max_attempts, backoff = excluded.backoff,
               timeout = excluded.timeout, headers = excluded.headers, catch_up = excluded.catch_up, cap = excluded.cap,
               stagger = excluded.stagger, misfire_grace = excluded.misfire_grace, overlap = excluded.overlap,
               max_instances = excluded.max_instances, jitter = excluded.jitter, starts_at = excluded.starts_at,
               ends_at = excluded.ends_at, max_runs = excluded.max_runs, fault = null, due_at = 'epoch',
               -- One that had ended begins anew, and so does one that has not started.
               decided_until = case when jobd.same_times(s, excluded) and s.decided_until <= moment
                                         and (s.due_at is not null or s.fault is not null)
                                    then greatest(s.decided_until, excluded.starts_at - interval '1 microsecond')
                                    else excluded.decided_until end,
               queued_until = case when jobd.same_times(s, excluded) then s.queued_until end,
               runs = case when jobd.same_times(s, excluded) then s.runs else 0 end,
               passed_until = case when s.paused_by = 'deploy' then moment else s.passed_until end,
               paused_at = case when s.paused_by = 'deploy' then null else s.paused_at end,
               paused_by = nullif(s.paused_by, 'deploy'),
               revision = s.revision + 1, changed_at = clock_timestamp()
         where put_schedules.replace
        returning id
    )
    select array_agg(id) into changed from put;
    if changed is not null then
        perform pg_notify('jobd_schedules', '');
    end if;
    return query
    select s.id, s.decided_until, others ->> s.id from jobd.schedules s
     where s.id = any (changed)
        or put_schedules.replace
           and s.id in (select g ->> 'id' from jsonb_array_elements(put_schedules.schedules) g);
end
$$;

drop function if exists jobd.add_schedule(text, text, text, jsonb, text, boolean, text, text, timestamptz, text, integer, text, text,
                                          interval, text, integer, jsonb, interval, jsonb, text, integer, interval, interval,
                                          text, integer, interval, timestamptz, timestamptz, integer);

create or replace function jobd.add_schedule(
    id              text,
    expression      text,
    kind            text,
    payload         jsonb default '{}',
    time_zone       text default 'UTC',
    "replace"       boolean default false,
    dst             text default 'debian',
    seconds         text default null,
    anchor          timestamptz default null,
    queue           text default 'default',
    priority        integer default 0,
    tenant_id       text default null,
    use_case        text default null,
    delay_tolerance interval default null,
    deadline_policy text default 'run',
    max_attempts    integer default null,
    backoff         jsonb default null,
    timeout         interval default null,
    headers         jsonb default null,
    catch_up        text default 'last',
    cap             integer default 100,
    stagger         interval default '0',
    misfire_grace   interval default null,
    overlap         text default 'skip',
    max_instances   integer default 1,
    jitter          interval default '0',
    starts_at       timestamptz default null,
    ends_at         timestamptz default null,
    max_runs        integer default null,
    concurrency_key text default null
) returns void
language plpgsql volatile
as $$
-- Let a job occur as the expression says. Whether the expression can be read is not known here: the scheduler finds
-- out within a second, and if not the schedule rests, and its `fault` says why.
#variable_conflict use_column
declare
    stands boolean;
begin
    perform jobd.check_job(add_schedule.kind, add_schedule.queue, add_schedule.deadline_policy, null,
                           add_schedule.concurrency_key, add_schedule.tenant_id, add_schedule.use_case,
                           coalesce(add_schedule.delay_tolerance,
                                    (select q.delay_tolerance from jobd.queues q where q.name = add_schedule.queue)),
                           add_schedule.timeout, add_schedule.headers, add_schedule.payload);
    if add_schedule.expression is null or length(add_schedule.expression) not between 1 and 256 then
        raise exception 'expression = %: 1 to 256 characters, like ''0 9 * * 1-5'' or ''every 15m''',
                        quote_nullable(left(add_schedule.expression, 120)) using errcode = 'invalid_parameter_value';
    end if;
    begin
        perform clock_timestamp() at time zone add_schedule.time_zone;
    exception when invalid_parameter_value then
        raise exception 'time_zone = %: an IANA name, like Europe/Berlin', quote_nullable(left(add_schedule.time_zone, 120))
            using errcode = 'invalid_parameter_value';
    end;
    if add_schedule.misfire_grace < interval '1 s' then
        raise exception 'misfire_grace = %: 1 second or more, or null', add_schedule.misfire_grace
            using errcode = 'invalid_parameter_value';
    end if;
    select exists (select from jobd.put_schedules(jsonb_build_array(jsonb_build_object(
        'id', add_schedule.id, 'owner', 'api', 'expression', add_schedule.expression, 'kind', add_schedule.kind,
        'payload', add_schedule.payload, 'time_zone', add_schedule.time_zone, 'dst', add_schedule.dst,
        'seconds', add_schedule.seconds, 'anchor', add_schedule.anchor, 'queue', add_schedule.queue,
        'priority', add_schedule.priority, 'tenant_id', add_schedule.tenant_id, 'use_case', add_schedule.use_case,
        'concurrency_key', add_schedule.concurrency_key,
        'delay_tolerance', add_schedule.delay_tolerance, 'deadline_policy', add_schedule.deadline_policy,
        'max_attempts', add_schedule.max_attempts, 'backoff', add_schedule.backoff, 'timeout', add_schedule.timeout,
        'headers', add_schedule.headers, 'catch_up', add_schedule.catch_up, 'cap', add_schedule.cap,
        'stagger', add_schedule.stagger,
        'misfire_grace', coalesce(add_schedule.misfire_grace, case when add_schedule.catch_up = 'skip' then interval '300 s' end),
        'overlap', add_schedule.overlap, 'max_instances', add_schedule.max_instances, 'jitter', add_schedule.jitter,
        'starts_at', add_schedule.starts_at, 'ends_at', add_schedule.ends_at, 'max_runs', add_schedule.max_runs)),
        add_schedule.replace)) into stands;
    if not stands then
        raise exception 'there is a schedule % already: say replace => true', quote_literal(add_schedule.id)
            using errcode = 'unique_violation', constraint = 'schedules_pkey';
    end if;
end
$$;

create or replace function jobd.remove_schedule(id text) returns boolean
language sql volatile
as $$
    -- Forget a schedule; its jobs and its history stay. False: there is none of this id.
    with gone as (delete from jobd.schedules s where s.id = remove_schedule.id returning 1)
    select exists (select from gone)
$$;

create or replace function jobd.remove_schedules(prefix text) returns setof text
language sql volatile
as $$
    -- Forget all schedules whose id begins so; returns their ids.
    with gone as materialized (
        select s.id from jobd.schedules s where starts_with(s.id, remove_schedules.prefix) order by s.id for update
    )
    delete from jobd.schedules s using gone where s.id = gone.id returning s.id
$$;

create or replace function jobd.pause_schedule(id text, by text default 'sql', now timestamptz default null) returns boolean
language sql volatile
as $$
    -- Let no occurrence run until it is resumed. False: there is none of this id.
    with paused as (
        update jobd.schedules s
           set paused_at = coalesce(s.paused_at, pause_schedule.now, clock_timestamp()),
               paused_by = coalesce(s.paused_by, pause_schedule.by), revision = s.revision + 1
         where s.id = pause_schedule.id
        returning 1
    )
    select exists (select from paused)
$$;

create or replace function jobd.resume_schedule(id text, now timestamptz default null) returns boolean
language sql volatile
as $$
    -- Let occurrences run again; those of the pause are told as skipped. False: there is none of this id.
    with resumed as (
        update jobd.schedules s
           set passed_until = case when s.paused_at is null then s.passed_until
                                   else coalesce(resume_schedule.now, clock_timestamp()) end,
               -- Of two pauses that nobody looked between, the first began it.
               passed_from = case when s.paused_at is null or s.passed_until > s.decided_until then s.passed_from
                                  else s.paused_at end,
               due_at = case when s.due_at is null then null else 'epoch'::timestamptz end,
               paused_at = null, paused_by = null, revision = s.revision + 1
         where s.id = resume_schedule.id
        returning pg_notify('jobd_schedules', '')
    )
    select exists (select from resumed)
$$;

create or replace function jobd.trigger_schedule(id text, job_id uuid default null, now timestamptz default null) returns uuid
language sql volatile
as $$
    -- Run an occurrence of its own, now, whatever the schedule says and paused or not; returns its job's id, or null:
    -- there is none of this id. The tenant's lock comes first, as with any enqueue.
    select jobd.admit(s.tenant_id, 0) from jobd.schedules s where s.id = trigger_schedule.id and s.tenant_id is not null;
    with triggered as (
        update jobd.schedules s
           set open_jobs = s.open_jobs || coalesce(trigger_schedule.job_id, jobd.uuid7()), revision = s.revision + 1
         where s.id = trigger_schedule.id
        returning s.*, coalesce(trigger_schedule.now, clock_timestamp()) as moment
    ), decided as (
        insert into jobd.schedule_runs (schedule_id, fire_at, last_at, outcome, reason, job_id)
        select t.id, t.moment, t.moment, 'ran', 'triggered', t.open_jobs[cardinality(t.open_jobs)] from triggered t
        returning schedule_id, job_id
    ), made as (
        insert into jobd.jobs (id, queue, kind, tenant_id, use_case, concurrency_key, state, priority, run_at, deadline_at,
                               delay_tolerance, deadline_policy, payload, max_attempts, backoff, timeout, headers, created_at)
        select d.job_id, t.queue, t.kind, t.tenant_id, t.use_case, t.concurrency_key, 'ready', t.priority, t.moment,
               t.moment + coalesce(t.delay_tolerance, q.delay_tolerance, '0'), coalesce(t.delay_tolerance, q.delay_tolerance), t.deadline_policy, t.payload, t.max_attempts,
               t.backoff, t.timeout,
               coalesce(t.headers, '{}')
           || jsonb_strip_nulls(jsonb_build_object('schedule', t.id, 'fire_at', t.moment,
                                                   'last_success_at', greatest(t.last_success_at, e.last_success_at))),
               t.moment
          from decided d join triggered t on t.id = d.schedule_id left join jobd.queues q on q.name = t.queue
         cross join lateral jobd.ended_runs(t.open_jobs) e
        returning id, queue, tenant_id
    )
    select made.id
      from made
     cross join lateral (select case when made.tenant_id is not null
                                     then jobd.sift(made.tenant_id, array[made.id], true, trigger_schedule.now) end) sifted
     cross join lateral (select jobd.wake(array[made.queue])) woken
$$;

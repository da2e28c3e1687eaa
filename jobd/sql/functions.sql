-- The functions of schema jobd for jobs, re-created by every migrate, as those of the other files whose names
-- begin so. `jobd.enqueue` and `jobd.enqueue_many` are the door for every language; the others serve the blocks
-- in the files beside this one.
-- A function whose arguments change gets a new signature; the old one stays for one release, and never do two
-- signatures of a name both have defaults for all that differs. Every change, in any of these files, raises this number:
-- functions: 12

create or replace function jobd.uuid7() returns uuid
language sql volatile parallel safe set search_path = pg_catalog
as $$
    -- RFC 9562, 6.2 method 3: 48 bits of milliseconds, then 12 bits of the fraction of a millisecond.
    select encode(
        set_byte(set_byte(
            overlay(uuid_send(gen_random_uuid())
                    placing substring(int8send((t.micros / 1000)::bigint) from 3) from 1 for 6),
            6, (112 | ((((t.micros % 1000) * 4096) / 1000)::int >> 8))),
            7, ((((t.micros % 1000) * 4096) / 1000)::int & 255)), 'hex')::uuid
      from (select (extract(epoch from clock_timestamp()) * 1000000)::bigint as micros) t
$$;

create or replace function jobd.uuid7_at(id uuid) returns timestamptz
language sql immutable parallel safe set search_path = pg_catalog
as $$
    -- When a UUIDv7 was made; -infinity for any other id.
    select case when substr(id::text, 15, 1) = '7'
           then to_timestamp(('x' || translate(left(id::text, 13), '-', ''))::bit(48)::bigint / 1000.0)
           else '-infinity'::timestamptz end
$$;

create or replace function jobd.wake(queues text[]) returns void
language sql volatile set search_path = pg_catalog
as $$
    -- A hint to workers that sleep. NOTIFY takes a lock on the whole server at commit, so none is
    -- sent where nobody sleeps; a worker that falls asleep meanwhile finds the job at its next poll.
    select pg_notify('jobd_wake', q.queue)
      from (select distinct unnest(queues) as queue) q
     where exists (select from jobd.workers w
                    where w.sleeping_until > clock_timestamp() and w.lease_until > clock_timestamp()
                      and q.queue = any (w.queues))
$$;

create or replace function jobd.with_error(errors jsonb, error jsonb) returns jsonb
language sql immutable parallel safe
as $$
    -- The errors of all attempts; of more than 20, the first and the last 19.
    select case when error is null then errors
                when jsonb_array_length(errors) >= 20 then (errors - 1) || jsonb_build_array(error)
                else errors || jsonb_build_array(error) end
$$;

create or replace function jobd.ended(job jobd.jobs, state text, reason text, result jsonb, error jsonb, at timestamptz,
                                      crashed integer default 0)
returns setof jobd.job_history
language sql stable
as $$
    -- The row of the history for a job that leaves `jobs`. One that was running gets claim_no + 1.
    -- The planner puts this into the calling statement, which halves the cost of a finish, but only while
    -- no argument is volatile: callers pass a column for `at`, never clock_timestamp() itself.
    select job.id, job.queue, job.kind, job.tenant_id, job.use_case, ended.state, job.priority, job.run_at,
           job.deadline_at, job.delay_tolerance, job.deadline_policy, job.payload, job.attempt, job.max_attempts,
           job.crashes + ended.crashed, job.generation, job.claim_no + (job.state = 'running')::int, job.worker_id, job.claimed_at,
           job.cancel_requested_at, job.unique_key, job.concurrency_key, job.backoff, job.timeout,
           jobd.with_error(job.errors, ended.error), job.progress, job.headers, job.created_at,
           ended.result, ended.reason, ended.at, job.unique_for
$$;

create or replace function jobd.tombstone(job jobd.jobs, state text, at timestamptz) returns setof jobd.tombstones
language sql stable
as $$
    -- What is left of a job that leaves `jobs` and whose queue does not keep it. Used as `ended` is.
    select job.id, job.claim_no + (job.state = 'running')::int, tombstone.at, tombstone.state, job.queue, job.kind,
           job.tenant_id
$$;

create or replace function jobd.check_job(kind text, queue text, deadline_policy text, unique_key text, tenant_id text,
                                          delay_tolerance interval, timeout interval, headers jsonb, payload jsonb) returns void
language plpgsql immutable
as $$
begin
    if kind is null or kind !~ '^[A-Za-z_][A-Za-z0-9_.:-]{0,99}$' then
        raise exception 'kind = %: a letter or _, then at most 99 letters, digits or any of _ . : -', quote_nullable(left(kind, 120))
            using errcode = 'invalid_parameter_value';
    end if;
    if queue is null or queue !~ '^[A-Za-z_][A-Za-z0-9_.:-]{0,99}$' then
        raise exception 'queue = %: a letter or _, then at most 99 letters, digits or any of _ . : -', quote_nullable(left(queue, 120))
            using errcode = 'invalid_parameter_value';
    end if;
    if deadline_policy not in ('run', 'drop') then
        raise exception 'deadline_policy = %: say ''run'' or ''drop''', quote_nullable(deadline_policy)
            using errcode = 'invalid_parameter_value';
    end if;
    if length(unique_key) > 500 then
        raise exception 'unique_key is % characters long: use at most 500, or a hash', length(unique_key)
            using errcode = 'invalid_parameter_value';
    end if;
    if octet_length(tenant_id) > 255 then
        raise exception 'tenant_id is % bytes long: use at most 255', octet_length(tenant_id)
            using errcode = 'invalid_parameter_value';
    end if;
    if jsonb_typeof(headers) <> 'object' then
        raise exception 'headers: a JSON object, like {"tags": ["a"], "meta": {}}' using errcode = 'invalid_parameter_value';
    end if;
    if pg_column_size(payload) > 67108864 then
        raise exception 'payload: % bytes are too many; store large data elsewhere and enqueue where it is', pg_column_size(payload)
            using errcode = 'invalid_parameter_value';
    end if;
    if greatest(delay_tolerance, timeout) > interval '36525 days' or least(delay_tolerance, timeout) < interval '0' then
        raise exception 'delay_tolerance and timeout: from 0 to 36525 days (100 years)'
            using errcode = 'invalid_parameter_value';
    end if;
end
$$;

drop function if exists jobd.enqueue(text, jsonb, text, timestamptz, interval, integer, text, text, text, text, interval,
                                     text, integer, jsonb, interval, jsonb, timestamptz, boolean, uuid);
drop function if exists jobd.enqueue(text, jsonb, text, timestamptz, interval, integer, text, text, text, text, interval,
                                     text, integer, jsonb, interval, jsonb, timestamptz, uuid);
drop function if exists jobd.enqueue_many(text, jsonb[], text, timestamptz, interval, integer, text, text, interval, text,
                                          integer, jsonb, interval, jsonb, timestamptz, uuid[]);

create or replace function jobd.enqueue(
    kind            text,
    payload         jsonb default '{}',
    queue           text default 'default',
    run_at          timestamptz default null,
    delay           interval default null,
    priority        integer default 0,
    tenant_id       text default null,
    use_case        text default null,
    unique_key      text default null,
    concurrency_key text default null,
    delay_tolerance interval default null,
    deadline_policy text default 'run',
    max_attempts    integer default null,
    backoff         jsonb default null,
    timeout         interval default null,
    headers         jsonb default null,
    now             timestamptz default null,
    inout id        uuid default null,
    unique_for      text default 'unfinished',
    on_conflict     text default 'keep',
    out created     boolean,
    out replaced    boolean,
    out shed        boolean
)
language plpgsql volatile
as $$
-- Put one job into the queue. `created` is false when job `id` already stood for it: the same id
-- was enqueued before (also if it finished since), or a job holds the unique key. That one keeps as it is, or gets
-- payload, time and priority of this call if it waits (`on_conflict` 'replace'), or the call fails ('reject').
-- `shed` is true when the tenant had no room for it and it ended at once, `dead`; see jobd.turn_away.
#variable_conflict use_column
declare
    surplus  integer := 0;
    moment   timestamptz := coalesce(enqueue.now, pg_catalog.now());
    due      timestamptz := coalesce(enqueue.run_at, coalesce(enqueue.now, pg_catalog.now()) + coalesce(enqueue.delay, '0'));
    repeated boolean := enqueue.id is not null;
    span     interval;
    holder   record;
begin
    perform jobd.check_job(enqueue.kind, enqueue.queue, enqueue.deadline_policy, enqueue.unique_key,
                           enqueue.tenant_id, enqueue.delay_tolerance, enqueue.timeout, enqueue.headers,
                           enqueue.payload);
    id := coalesce(enqueue.id, jobd.uuid7());
    replaced := false;
    if enqueue.unique_for is distinct from 'unfinished' or enqueue.on_conflict is distinct from 'keep' then
        span := jobd.unique_span(enqueue.unique_key, enqueue.unique_for, enqueue.on_conflict);
    end if;
    delay_tolerance := coalesce(enqueue.delay_tolerance, (select q.delay_tolerance from jobd.queues q where q.name = enqueue.queue));
    shed := false;
    if tenant_id is not null then
        -- Before the insert, which may wait for a key that somebody holds who waits for this lock.
        surplus := jobd.admit(enqueue.tenant_id);
    end if;
    if enqueue.unique_key is not null then
        select u.id, u.created, u.replaced into id, created, replaced
          from jobd.enqueue_unique(enqueue.kind, enqueue.payload, enqueue.queue, due, enqueue.priority, enqueue.tenant_id,
                                   enqueue.use_case, enqueue.unique_key, enqueue.concurrency_key, enqueue.delay_tolerance,
                                   enqueue.deadline_policy, enqueue.max_attempts, enqueue.backoff, enqueue.timeout,
                                   enqueue.headers, enqueue.unique_for, span, enqueue.on_conflict, moment,
                                   coalesce(enqueue.now, clock_timestamp()), repeated, enqueue.id) u;
        if not created then
            return;
        end if;
    else
        loop
            insert into jobd.jobs (id, queue, kind, tenant_id, use_case, state, priority, run_at, deadline_at,
                                   delay_tolerance, deadline_policy, payload, max_attempts, concurrency_key, backoff,
                                   timeout, headers, created_at)
            values (enqueue.id, enqueue.queue, enqueue.kind, enqueue.tenant_id, enqueue.use_case,
                    case when due > moment then 'scheduled' else 'ready' end, enqueue.priority, due,
                    due + coalesce(enqueue.delay_tolerance, '0'), enqueue.delay_tolerance, enqueue.deadline_policy,
                    enqueue.payload, enqueue.max_attempts, enqueue.concurrency_key, enqueue.backoff, enqueue.timeout,
                    enqueue.headers, moment)
            on conflict do nothing;
            created := found;
            if created then
                exit when not repeated;
                -- A fresh snapshot: the first try may have been run and finished before this insert.
                select b.kind, b.tenant_id into holder from jobd.enqueued_before(enqueue.id, moment) b;
                exit when not found;
                delete from jobd.jobs j where j.id = enqueue.id;
                created := false;
            else
                select j.kind, j.tenant_id into holder from jobd.jobs j where j.id = enqueue.id;
            end if;
            if found then
                if holder.kind <> enqueue.kind or holder.tenant_id is distinct from enqueue.tenant_id then
                    raise exception 'id % belongs to a job of another kind or tenant', enqueue.id
                        using errcode = 'unique_violation', constraint = 'jobs_pkey';
                end if;
                return;
            end if;
            -- Whoever stood in the way finished between the insert and the look: try again.
        end loop;
    end if;
    if surplus > 0 then
        shed := jobd.turn_away(enqueue.tenant_id, array[enqueue.id], true, enqueue.now);
    end if;
    -- As in jobd.wake, whose call would cost as much as the insert.
    if due <= moment and exists (select from jobd.workers w
                                  where w.sleeping_until > clock_timestamp() and w.lease_until > clock_timestamp()
                                    and enqueue.queue = any (w.queues)) then
        perform pg_notify('jobd_wake', enqueue.queue);
    end if;
end
$$;

drop function if exists jobd.enqueue_many(text, jsonb[], text, timestamptz, interval, integer, text, text, interval, text, integer,
                                          jsonb, interval, jsonb, timestamptz, uuid[]);

create or replace function jobd.enqueue_many(
    kind            text,
    payloads        jsonb[],
    queue           text default 'default',
    run_at          timestamptz default null,
    delay           interval default null,
    priority        integer default 0,
    tenant_id       text default null,
    use_case        text default null,
    delay_tolerance interval default null,
    deadline_policy text default 'run',
    max_attempts    integer default null,
    backoff         jsonb default null,
    timeout         interval default null,
    headers         jsonb default null,
    now             timestamptz default null,
    ids             uuid[] default null,
    unique_keys     text[] default null,
    unique_for      text default 'unfinished',
    on_conflict     text default 'keep',
    concurrency_keys text[] default null
) returns setof uuid
language plpgsql volatile
as $$
-- Put one job a payload into the queue, all or none; returns their ids in the order of the payloads. With
-- `unique_keys`, one a payload or null, the id of an existing job may stand for a new one, as in `jobd.enqueue`. They are
-- taken in the order of their bytes, one after the other, so that two such calls never wait for each other.
-- Those for which the tenant has no room are the last ones; see jobd.turn_away.
#variable_conflict use_column
declare
    surplus integer := 0;
    moment timestamptz := coalesce(enqueue_many.now, pg_catalog.now());
    due    timestamptz := coalesce(enqueue_many.run_at, coalesce(enqueue_many.now, pg_catalog.now()) + coalesce(enqueue_many.delay, '0'));
    span   interval;
    all_ids uuid[] := enqueue_many.ids;
    given  record;
    held   record;
    made   uuid[] := '{}';
begin
    perform jobd.check_job(enqueue_many.kind, enqueue_many.queue, enqueue_many.deadline_policy, null,
                           enqueue_many.tenant_id, enqueue_many.delay_tolerance, enqueue_many.timeout,
                           enqueue_many.headers, null);
    if cardinality(ids) <> cardinality(payloads) then
        raise exception 'enqueue_many got % ids for % payloads: give as many, or none', cardinality(ids), cardinality(payloads)
            using errcode = 'invalid_parameter_value';
    end if;
    if cardinality(concurrency_keys) <> cardinality(payloads) then
        raise exception 'enqueue_many got % concurrency_keys for % payloads: give as many, or none', cardinality(concurrency_keys), cardinality(payloads)
            using errcode = 'invalid_parameter_value';
    end if;
    if unique_for is distinct from 'unfinished' or on_conflict is distinct from 'keep' then
        span := jobd.unique_span(case when unique_keys is not null then '' end, unique_for, on_conflict);
    end if;
    delay_tolerance := coalesce(enqueue_many.delay_tolerance,
                                (select q.delay_tolerance from jobd.queues q where q.name = enqueue_many.queue));
    if enqueue_many.tenant_id is not null and cardinality(payloads) > 0 then
        -- With keys some may stand already: those that are new are weighed when they are known.
        surplus := jobd.admit(enqueue_many.tenant_id, case when unique_keys is null then cardinality(payloads) else 0 end);
        if surplus > 0 and ids is null then
            ids := array(select jobd.uuid7() from unnest(payloads));
        end if;
    end if;
    if unique_keys is not null then
        if cardinality(unique_keys) <> cardinality(payloads) then
            raise exception 'enqueue_many got % unique_keys for % payloads: give as many, null where there is none',
                            cardinality(unique_keys), cardinality(payloads)
                using errcode = 'invalid_parameter_value';
        end if;
        if all_ids is null then
            select array_agg(jobd.uuid7()) into all_ids from generate_series(1, cardinality(payloads));
        end if;
        for given in
            select n.payload, n.unique_key, n.concurrency_key, n.place
              from unnest(enqueue_many.payloads, enqueue_many.unique_keys, enqueue_many.concurrency_keys) with ordinality
                   as n (payload, unique_key, concurrency_key, place)
             order by n.unique_key collate "C", n.place
        loop
            perform jobd.check_job(enqueue_many.kind, enqueue_many.queue, enqueue_many.deadline_policy, given.unique_key,
                                   null, null, null, null, null)
              where length(given.unique_key) > 500;
            select u.id, u.created into held
                  from jobd.enqueue_unique(enqueue_many.kind, given.payload, enqueue_many.queue, due, enqueue_many.priority,
                                           enqueue_many.tenant_id, enqueue_many.use_case, given.unique_key,
                                           given.concurrency_key, enqueue_many.delay_tolerance, enqueue_many.deadline_policy,
                                           enqueue_many.max_attempts, enqueue_many.backoff, enqueue_many.timeout,
                                           enqueue_many.headers,
                                           case when given.unique_key is null then 'unfinished' else unique_for end,
                                           case when given.unique_key is not null then span end, on_conflict, moment,
                                           coalesce(enqueue_many.now, clock_timestamp()), false, all_ids[given.place]) u;
            all_ids[given.place] := held.id;
            if held.created then
                made := made || held.id;
            end if;
        end loop;
        if enqueue_many.tenant_id is not null and cardinality(made) > 0 then
            perform jobd.weigh(enqueue_many.tenant_id, made, true, enqueue_many.now);
        end if;
        return query select n.id from unnest(all_ids) with ordinality as n (id, place) order by n.place;
    else
        return query
        insert into jobd.jobs (id, queue, kind, tenant_id, use_case, state, priority, run_at, deadline_at,
                               delay_tolerance, deadline_policy, payload, max_attempts, concurrency_key, backoff, timeout, headers,
                               created_at)
        select coalesce(n.id, jobd.uuid7()), enqueue_many.queue, enqueue_many.kind, enqueue_many.tenant_id,
               enqueue_many.use_case, case when due > moment then 'scheduled' else 'ready' end, enqueue_many.priority, due,
               due + coalesce(enqueue_many.delay_tolerance, '0'), enqueue_many.delay_tolerance, enqueue_many.deadline_policy,
               n.payload, enqueue_many.max_attempts, n.concurrency_key, enqueue_many.backoff, enqueue_many.timeout,
               enqueue_many.headers, moment
          from unnest(enqueue_many.ids, enqueue_many.payloads, enqueue_many.concurrency_keys) as n (id, payload, concurrency_key)
        returning id;
        if surplus > 0 then
            perform jobd.turn_away(enqueue_many.tenant_id, ids[cardinality(ids) - surplus + 1 :], true, enqueue_many.now);
        end if;
    end if;
    if due <= moment then
        perform jobd.wake(array[enqueue_many.queue]);
    end if;
end
$$;

create or replace function jobd.ensure_partitions(days integer default 7, now timestamptz default null) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO'
as $$
-- Create and attach the partitions of the history from yesterday to `days` ahead, and those of the tombstones
-- to at most two, since every enqueue looks through them; returns how many were missing, or -1 when another
-- session is at it. Security definer, so that a worker without the right to create tables can still keep the
-- history going. ATTACH, unlike CREATE ... PARTITION OF, does not lock out the writers.
declare
    parent  text;
    day     date;
    name    text;
    missing integer := 0;
    today   date := (coalesce(ensure_partitions.now, pg_catalog.clock_timestamp()) at time zone 'UTC')::date;
begin
    if ensure_partitions.days not between 0 and 31
       or abs(today - (pg_catalog.clock_timestamp() at time zone 'UTC')::date) > 3660 then
        raise exception 'ensure_partitions: at most 31 days ahead, of a time within ten years'
            using errcode = 'invalid_parameter_value';
    end if;
    if not pg_try_advisory_xact_lock(hashtext('jobd.ensure_partitions')) then
        return -1;
    end if;
    for parent, day in
        select p.parent, d::date
          from (values ('job_history', ensure_partitions.days), ('tombstones', least(ensure_partitions.days, 2))) p (parent, ahead),
               generate_series(today - 1, today + p.ahead, interval '1 day') d
    loop
        name := parent || '_' || to_char(day, 'YYYYMMDD');
        if to_regclass('jobd.' || name) is null then
            execute format('create table jobd.%I (like jobd.%I including all)', name, parent);
            execute format('alter table jobd.%I attach partition jobd.%I for values from (%L) to (%L)',
                           parent, name, day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC');
            missing := missing + 1;
        end if;
    end loop;
    return missing;
end
$$;

revoke execute on function jobd.ensure_partitions(integer, timestamptz) from public;

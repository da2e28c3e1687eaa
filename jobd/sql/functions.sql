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

drop function if exists jobd.check_job(text, text, text, text, text, interval, interval, jsonb, jsonb);

create or replace function jobd.check_job(kind text, queue text, deadline_policy text, unique_key text, concurrency_key text,
                                          tenant_id text, use_case text, delay_tolerance interval, timeout interval,
                                          headers jsonb, payload jsonb) returns void
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
    if deadline_policy = 'drop' and delay_tolerance is null then
        raise exception 'deadline_policy = ''drop'': needs a delay_tolerance, its own or that of queue %: late by how much?', quote_literal(queue)
            using errcode = 'invalid_parameter_value';
    end if;
    if length(unique_key) not between 1 and 500 then
        raise exception 'unique_key is % characters long: use 1 to 500, or a hash', length(unique_key)
            using errcode = 'invalid_parameter_value';
    end if;
    if length(concurrency_key) not between 1 and 500 then
        raise exception 'concurrency_key is % characters long: use 1 to 500, or a hash', length(concurrency_key)
            using errcode = 'invalid_parameter_value';
    end if;
    if octet_length(tenant_id) > 255 then
        raise exception 'tenant_id is % bytes long: use at most 255', octet_length(tenant_id)
            using errcode = 'invalid_parameter_value';
    end if;
    if octet_length(use_case) > 255 then
        raise exception 'use_case is % bytes long: use at most 255', octet_length(use_case)
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
-- `shed` is true when the tenant had no room for it and it ended at once, `dead`; see jobd.sift.
#variable_conflict use_column
declare
    surplus  integer := 0;
    moment   timestamptz := coalesce(enqueue.now, pg_catalog.now());
    due      timestamptz := coalesce(enqueue.run_at, coalesce(enqueue.now, pg_catalog.now()) + coalesce(enqueue.delay, '0'));
    repeated boolean := enqueue.id is not null;
    span     interval;
    holder   record;
begin
    delay_tolerance := coalesce(enqueue.delay_tolerance, (select q.delay_tolerance from jobd.queues q where q.name = enqueue.queue));
    perform jobd.check_job(enqueue.kind, enqueue.queue, enqueue.deadline_policy, enqueue.unique_key,
                           enqueue.concurrency_key, enqueue.tenant_id, enqueue.use_case, enqueue.delay_tolerance,
                           enqueue.timeout, enqueue.headers, enqueue.payload);
    id := coalesce(enqueue.id, jobd.uuid7());
    replaced := false;
    if enqueue.unique_for is distinct from 'unfinished' or enqueue.on_conflict is distinct from 'keep' then
        span := jobd.unique_span(enqueue.unique_key, enqueue.unique_for, enqueue.on_conflict);
    end if;
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
        shed := jobd.sift(enqueue.tenant_id, array[enqueue.id], true, enqueue.now) <> '{}';
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

create or replace function jobd.put_many(
    kind            text,
    payloads        jsonb[],
    queue           text,
    run_at          timestamptz,
    delay           interval,
    priority        integer,
    tenant_id       text,
    use_case        text,
    delay_tolerance interval,
    deadline_policy text,
    max_attempts    integer,
    backoff         jsonb,
    timeout         interval,
    headers         jsonb,
    now             timestamptz,
    ids             uuid[],
    unique_keys     text[],
    unique_for      text,
    on_conflict     text,
    concurrency_keys text[]
) returns table (id uuid, shed boolean)
language plpgsql volatile
as $$
-- The rest of `jobd.enqueue_many`; of each job also whether the tenant had no room for it and it ended at once.
#variable_conflict use_column
declare
    surplus integer := 0;
    moment timestamptz := coalesce(put_many.now, pg_catalog.now());
    due    timestamptz := coalesce(put_many.run_at, coalesce(put_many.now, pg_catalog.now()) + coalesce(put_many.delay, '0'));
    span   interval;
    all_ids uuid[] := coalesce(put_many.ids, array(select jobd.uuid7() from unnest(put_many.payloads)));
    given  record;
    held   record;
    made   uuid[] := '{}';
    gone   uuid[] := '{}';
begin
    delay_tolerance := coalesce(put_many.delay_tolerance,
                                (select q.delay_tolerance from jobd.queues q where q.name = put_many.queue));
    perform jobd.check_job(put_many.kind, put_many.queue, put_many.deadline_policy, null, null, put_many.tenant_id,
                           put_many.use_case, put_many.delay_tolerance, put_many.timeout, put_many.headers, null);
    if cardinality(ids) <> cardinality(payloads) then
        raise exception 'enqueue_many got % ids for % payloads: give as many, or none', cardinality(ids), cardinality(payloads)
            using errcode = 'invalid_parameter_value';
    end if;
    if cardinality(concurrency_keys) <> cardinality(payloads) then
        raise exception 'enqueue_many got % concurrency_keys for % payloads: give as many, or none', cardinality(concurrency_keys), cardinality(payloads)
            using errcode = 'invalid_parameter_value';
    end if;
    perform jobd.check_job(put_many.kind, put_many.queue, 'run', null, n.concurrency_key, null, null, null, null, null, null)
       from unnest(put_many.concurrency_keys) as n (concurrency_key) where length(n.concurrency_key) not between 1 and 500;
    if unique_for is distinct from 'unfinished' or on_conflict is distinct from 'keep' then
        span := jobd.unique_span(case when unique_keys is not null then '' end, unique_for, on_conflict);
    end if;
    if put_many.tenant_id is not null and cardinality(payloads) > 0 then
        -- With keys some may stand already: those that are new are sifted when they are known.
        surplus := jobd.admit(put_many.tenant_id, case when unique_keys is null then cardinality(payloads) else 0 end);
    end if;
    if unique_keys is not null then
        if cardinality(unique_keys) <> cardinality(payloads) then
            raise exception 'enqueue_many got % unique_keys for % payloads: give as many, null where there is none',
                            cardinality(unique_keys), cardinality(payloads)
                using errcode = 'invalid_parameter_value';
        end if;
        for given in
            select n.payload, n.unique_key, n.concurrency_key, n.place
              from unnest(put_many.payloads, put_many.unique_keys, put_many.concurrency_keys) with ordinality
                   as n (payload, unique_key, concurrency_key, place)
             order by n.unique_key collate "C", n.place
        loop
            perform jobd.check_job(put_many.kind, put_many.queue, 'run', given.unique_key, null, null, null, null, null, null, null)
              where length(given.unique_key) not between 1 and 500;
            select u.id, u.created into held
                  from jobd.enqueue_unique(put_many.kind, given.payload, put_many.queue, due, put_many.priority,
                                           put_many.tenant_id, put_many.use_case, given.unique_key,
                                           given.concurrency_key, put_many.delay_tolerance, put_many.deadline_policy,
                                           put_many.max_attempts, put_many.backoff, put_many.timeout, put_many.headers,
                                           case when given.unique_key is null then 'unfinished' else unique_for end,
                                           case when given.unique_key is not null then span end, on_conflict, moment,
                                           coalesce(put_many.now, clock_timestamp()), false, all_ids[given.place]) u;
            all_ids[given.place] := held.id;
            if held.created then
                made := made || held.id;
            end if;
        end loop;
        if put_many.tenant_id is not null and cardinality(made) > 0 then
            gone := jobd.sift(put_many.tenant_id, made, true, put_many.now);
        end if;
    else
        insert into jobd.jobs (id, queue, kind, tenant_id, use_case, state, priority, run_at, deadline_at,
                               delay_tolerance, deadline_policy, payload, max_attempts, concurrency_key, backoff, timeout, headers,
                               created_at)
        select n.id, put_many.queue, put_many.kind, put_many.tenant_id, put_many.use_case,
               case when due > moment then 'scheduled' else 'ready' end, put_many.priority, due,
               due + coalesce(put_many.delay_tolerance, '0'), put_many.delay_tolerance, put_many.deadline_policy,
               n.payload, put_many.max_attempts, n.concurrency_key, put_many.backoff, put_many.timeout, put_many.headers, moment
          from unnest(all_ids, put_many.payloads, put_many.concurrency_keys) as n (id, payload, concurrency_key);
        if surplus > 0 then
            gone := jobd.sift(put_many.tenant_id, all_ids, true, put_many.now);
        end if;
    end if;
    if due <= moment then
        perform jobd.wake(array[put_many.queue]);
    end if;
    return query
    select n.id, n.id = any (gone) from unnest(all_ids) with ordinality as n (id, place) order by n.place;
end
$$;

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
language sql volatile
as $$
    -- Put one job a payload into the queue, all or none; returns their ids in the order of the payloads. With
    -- `unique_keys`, one a payload or null, the id of an existing job may stand for a new one, as in `jobd.enqueue`. They are
    -- taken in the order of their bytes, one after the other, so that two such calls never wait for each other.
    -- Those for which the tenant has no room are the last ones, of jobs with keys in the order of these; see jobd.sift.
    select m.id from jobd.put_many(kind, payloads, queue, run_at, delay, priority, tenant_id, use_case, delay_tolerance,
                                   deadline_policy, max_attempts, backoff, timeout, headers, now, ids, unique_keys,
                                   unique_for, on_conflict, concurrency_keys) m
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

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
    if octet_length(tenant_id) not between 1 and 255 then
        raise exception 'tenant_id is % bytes long: use 1 to 255, or null for none', octet_length(tenant_id)
            using errcode = 'invalid_parameter_value';
    end if;
    if octet_length(use_case) not between 1 and 255 then
        raise exception 'use_case is % bytes long: use 1 to 255, or null for none', octet_length(use_case)
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

-- The functions of schema jobd that put many jobs into the queue at once; see functions.sql.

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

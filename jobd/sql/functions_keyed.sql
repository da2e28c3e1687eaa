-- The function of schema jobd that puts a job with a unique key into the queue; see functions.sql. Who holds a key, and
-- until when, is in functions_unique.sql.

create or replace function jobd.enqueue_unique(
    kind            text,
    payload         jsonb,
    queue           text,
    due             timestamptz,
    priority        integer,
    tenant_id       text,
    use_case        text,
    unique_key      text,
    concurrency_key text,
    delay_tolerance interval,
    deadline_policy text,
    max_attempts    integer,
    backoff         jsonb,
    timeout         interval,
    headers         jsonb,
    unique_for      text,
    span            interval,
    on_conflict     text,
    moment          timestamptz,
    at              timestamptz,
    repeated        boolean,
    inout id        uuid,
    out created     boolean,
    out replaced    boolean
)
language plpgsql volatile
as $$
-- Put one job with a unique key into the queue; the rest of `jobd.enqueue`, which has checked and filled in the values.
-- `repeated`: there may be, or have been, a job of this id.
#variable_conflict use_column
declare
    scope  text := case when span is not null then 'window' when unique_for = 'waiting' then 'waiting' end;
    own    uuid := enqueue_unique.id;
    -- Whether this transaction has written before.
    changing boolean := pg_current_xact_id_if_assigned() is not null;
    holder uuid;
    woken  text;
    past   record;
begin
    created := false;
    replaced := false;
    loop
        if repeated then
            select p.kind, p.tenant_id into past
              from (select j.kind, j.tenant_id from jobd.jobs j where j.id = own
                    union all
                    select b.kind, b.tenant_id from jobd.enqueued_before(own, moment) b) p;
            exit when found;
        end if;
        holder := case when scope is not null then
            jobd.take_key(enqueue_unique.unique_key, enqueue_unique.kind, enqueue_unique.tenant_id, scope, own, at,
                          at + coalesce(span, '1 minute')) end;
        if holder is null then
            insert into jobd.jobs (id, queue, kind, tenant_id, use_case, state, priority, run_at, deadline_at,
                                   delay_tolerance, deadline_policy, payload, max_attempts, unique_key, unique_for,
                                   concurrency_key, backoff, timeout, headers, created_at)
            values (own, enqueue_unique.queue, enqueue_unique.kind, enqueue_unique.tenant_id, enqueue_unique.use_case,
                    case when due > moment then 'scheduled' else 'ready' end, enqueue_unique.priority, due,
                    due + coalesce(enqueue_unique.delay_tolerance, '0'), enqueue_unique.delay_tolerance,
                    enqueue_unique.deadline_policy, enqueue_unique.payload, enqueue_unique.max_attempts,
                    enqueue_unique.unique_key, case when span is not null then justify_hours(span)::text else scope end,
                    enqueue_unique.concurrency_key, enqueue_unique.backoff, enqueue_unique.timeout, enqueue_unique.headers,
                    moment)
            on conflict do nothing;
            if found then
                if repeated then
                    -- A fresh snapshot: the first try may have been run and finished before this insert.
                    select b.kind, b.tenant_id into past from jobd.enqueued_before(own, moment) b;
                    if found then
                        delete from jobd.jobs j where j.id = own;
                        exit;
                    end if;
                end if;
                created := true;
                return;
            end if;
            if not repeated and exists (select from jobd.jobs j where j.id = own) then
                raise exception 'there is a job % already', own using errcode = 'unique_violation', constraint = 'jobs_pkey';
            end if;
            select j.id into holder from jobd.jobs j
             where scope is null and j.unique_for is null and j.id <> own
               and (j.tenant_id = enqueue_unique.tenant_id or j.tenant_id is null and enqueue_unique.tenant_id is null)
               and j.kind = enqueue_unique.kind and j.unique_key = enqueue_unique.unique_key;
            -- Whoever stood in the way ended between the insert and the look: try again.
            continue when not found;
        end if;
        if on_conflict = 'reject' then
            raise exception 'unique key % is held by job %', quote_literal(enqueue_unique.unique_key), holder
                using errcode = 'unique_violation', constraint = 'jobs_unique';
        end if;
        id := holder;
        if on_conflict = 'keep' then
            if scope is distinct from 'waiting' or not changing then
                return;
            end if;
            -- The job stands for what this transaction has changed, which its run has to see: claims pass over
            -- a job that is locked. One that is being claimed right now is waited for, for the length of that statement.
            begin
                perform from jobd.jobs j
                  where j.id = holder and j.state in ('scheduled', 'ready') and j.unique_for = 'waiting' for key share;
                if found then
                    return;
                end if;
                raise sqlstate 'JOBD1';
            exception when sqlstate 'JOBD1' then
                -- As below: lets go of a job that runs by now, and whose key is free.
                id := own;
            end;
            continue;
        end if;
        begin
            update jobd.jobs j
               set payload = enqueue_unique.payload, priority = enqueue_unique.priority, run_at = due,
                   -- Which may follow from the payload.
                   concurrency_key = enqueue_unique.concurrency_key,
                   deadline_at = due + coalesce(j.delay_tolerance, '0'),
                   state = case when due > moment then 'scheduled' else 'ready' end
             where j.id = holder and j.state in ('scheduled', 'ready') and (scope is distinct from 'waiting' or j.unique_for = 'waiting')
            returning case when j.state = 'ready' then j.queue end into woken;
            replaced := found;
            if not replaced then
                raise sqlstate 'JOBD1';
            end if;
        exception when sqlstate 'JOBD1' then
            -- A job that was claimed while the update waited for it is locked all the same: lets go of it, so that the
            -- end of its run never waits for this transaction.
            null;
        end;
        if replaced then
            perform jobd.wake(array[woken]) where woken is not null;
            return;
        end if;
        -- It runs, or has ended. A key for a window is held all the same; one for `waiting` is free by now.
        if scope = 'window'
           or scope is null and exists (select from jobd.jobs j where j.id = holder and j.state = 'running') then
            return;
        end if;
        id := own;
    end loop;
    if past.kind is distinct from enqueue_unique.kind or past.tenant_id is distinct from enqueue_unique.tenant_id then
        raise exception 'id % belongs to a job of another kind or tenant', own
            using errcode = 'unique_violation', constraint = 'jobs_pkey';
    end if;
end
$$;

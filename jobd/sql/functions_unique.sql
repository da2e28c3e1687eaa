-- The functions of schema jobd for unique keys; see functions.sql.
--
--     scope         is held by                                    until
--     unfinished    the row in jobs, by the index jobs_unique     its job has ended
--     waiting       the job that unique_keys names                it is claimed; back from its run, it holds the key
--                                                                 again, unless another job was named meanwhile
--     a window      the job that unique_keys names                the window is over, whatever became of the job
--
-- Who takes a key of the last two locks its row in unique_keys until the end of the transaction. A job comes back
-- from its run by statements that serve hundreds of jobs, and must wait for nobody: `scope_on_return` keeps the key only
-- if that row still names the job and nobody is taking it right now. So any waiting job that bears a key of
-- scope `waiting` is the one that its row names, at every commit.

create or replace function jobd.unique_span(unique_key text, unique_for text, on_conflict text) returns interval
language plpgsql stable
as $$
-- The window that `unique_for` names, or null for `unfinished` and `waiting`; refuses what means nothing.
declare
    span interval;
begin
    if unique_key is null and unique_for <> 'unfinished' then
        raise exception 'unique_for = %: says how long a unique_key is held, and there is none', quote_nullable(left(unique_for, 120))
            using errcode = 'invalid_parameter_value';
    end if;
    if on_conflict is null or on_conflict not in ('keep', 'replace', 'reject') then
        raise exception 'on_conflict = %: say ''keep'', ''replace'' or ''reject''', quote_nullable(left(on_conflict, 120))
            using errcode = 'invalid_parameter_value';
    end if;
    if unique_key is null and on_conflict <> 'keep' then
        raise exception 'on_conflict = %: there is no unique_key that another job could hold', quote_nullable(on_conflict)
            using errcode = 'invalid_parameter_value';
    end if;
    if unique_for in ('unfinished', 'waiting') then
        return null;
    end if;
    begin
        span := unique_for::interval;
    exception when invalid_datetime_format or datetime_field_overflow or interval_field_overflow then
        span := null;
    end;
    if span is null or span <= interval '0' or span > interval '36525 days' then
        raise exception 'unique_for = %: say ''unfinished'', ''waiting'', or a window of at most 36525 days, like ''24 hours''',
                        quote_nullable(left(unique_for, 120)) using errcode = 'invalid_parameter_value';
    end if;
    return span;
end
$$;

create or replace function jobd.enqueued_before(id uuid, moment timestamptz, out kind text, out tenant_id text) returns setof record
language sql stable
as $$
    -- The finished job of this id, by its history or its tombstone. The days ahead are empty, and are not opened.
    select h.kind, h.tenant_id from jobd.job_history h
     where h.id = enqueued_before.id and h.finished_at >= jobd.uuid7_at(enqueued_before.id) - interval '1 day'
       and h.finished_at < greatest(moment, statement_timestamp()) + interval '1 day'
    union all
    select t.kind, t.tenant_id from jobd.tombstones t
     where t.id = enqueued_before.id and t.finished_at >= jobd.uuid7_at(enqueued_before.id) - interval '1 day'
       and t.finished_at < greatest(moment, statement_timestamp()) + interval '1 day'
$$;

create or replace function jobd.lock_key(unique_key text, kind text, tenant_id text, scope text, waits boolean)
returns jobd.unique_keys
language plpgsql volatile
as $$
-- Lock the row of a key; null where there is none or, unless it `waits`, somebody has it locked. A comparison of tenants
-- that takes null for a value like any other is one that no index serves: of a key that all tenants use, it would
-- read the rows of all of them. Hence two statements, here as wherever a key is looked up.
declare
    locked jobd.unique_keys;
begin
    if tenant_id is null and waits then
        select k.* into locked from jobd.unique_keys k
         where k.unique_key = lock_key.unique_key and k.kind = lock_key.kind and k.tenant_id is null
           and k.scope = lock_key.scope for update;
    elsif tenant_id is null then
        select k.* into locked from jobd.unique_keys k
         where k.unique_key = lock_key.unique_key and k.kind = lock_key.kind and k.tenant_id is null
           and k.scope = lock_key.scope for update skip locked;
    elsif waits then
        select k.* into locked from jobd.unique_keys k
         where k.unique_key = lock_key.unique_key and k.kind = lock_key.kind and k.tenant_id = lock_key.tenant_id
           and k.scope = lock_key.scope for update;
    else
        select k.* into locked from jobd.unique_keys k
         where k.unique_key = lock_key.unique_key and k.kind = lock_key.kind and k.tenant_id = lock_key.tenant_id
           and k.scope = lock_key.scope for update skip locked;
    end if;
    return locked;
end
$$;

create or replace function jobd.take_key(
    unique_key text, kind text, tenant_id text, scope text, job_id uuid, at timestamptz, until timestamptz) returns uuid
language plpgsql volatile set enable_seqscan = off
as $$
-- Take a key of unique_keys for job `job_id`; returns null, or the job that holds it. Waits for those who are taking it
-- in other transactions. Each look is a statement of its own, and sees what was committed before it. A plan that was
-- made while the table was empty would read all of it later on: hence no sequential scans.
#variable_conflict use_column
declare
    named jobd.unique_keys;
    free  boolean;
begin
    loop
        select k.* into named
          from (select * from jobd.unique_keys o
                 where o.unique_key = take_key.unique_key and o.kind = take_key.kind
                   and o.tenant_id = take_key.tenant_id and o.scope = take_key.scope
                union all
                select * from jobd.unique_keys o
                 where o.unique_key = take_key.unique_key and o.kind = take_key.kind
                   and o.tenant_id is null and take_key.tenant_id is null and o.scope = take_key.scope) k;
        if not found then
            insert into jobd.unique_keys (unique_key, kind, tenant_id, scope, job_id, taken_at, until)
            values (take_key.unique_key, take_key.kind, take_key.tenant_id, take_key.scope, take_key.job_id,
                    take_key.at, take_key.until)
            on conflict do nothing;
            if found then
                return null;
            end if;
            continue;
        end if;
        if named.job_id <> take_key.job_id and jobd.holds_key(named, take_key.at) then
            return named.job_id;
        end if;
        -- It looks free. Its row is locked, and looked at again.
        named := jobd.lock_key(take_key.unique_key, take_key.kind, take_key.tenant_id, take_key.scope, false);
        if named.job_id is not null then
            free := named.job_id = take_key.job_id or not jobd.holds_key(named, take_key.at);
        else
            begin
                named := jobd.lock_key(take_key.unique_key, take_key.kind, take_key.tenant_id, take_key.scope, true);
                continue when named.job_id is null;
                free := named.job_id = take_key.job_id or not jobd.holds_key(named, take_key.at);
                if not free then
                    raise sqlstate 'JOBD1';
                end if;
            exception when sqlstate 'JOBD1' then
                -- Lets go of the lock, which nobody needs to the end of a transaction that takes nothing.
                null;
            end;
        end if;
        if not free then
            return named.job_id;
        end if;
        if take_key.scope = 'waiting' and current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
            -- A look with an old snapshot proves nothing, but a lock fails where there is something newer.
            begin
                perform from jobd.jobs j where j.id = named.job_id for key share skip locked;
                raise sqlstate 'JOBD1';
            exception when sqlstate 'JOBD1' then
                null;
            end;
        end if;
        update jobd.unique_keys k
           set job_id = take_key.job_id, taken_at = take_key.at, until = take_key.until
         where k.unique_key = take_key.unique_key and k.kind = take_key.kind
           and k.tenant_id = take_key.tenant_id and k.scope = take_key.scope;
        if not found then
            update jobd.unique_keys k
               set job_id = take_key.job_id, taken_at = take_key.at, until = take_key.until
             where k.unique_key = take_key.unique_key and k.kind = take_key.kind
               and k.tenant_id is null and take_key.tenant_id is null and k.scope = take_key.scope;
        end if;
        return null;
    end loop;
end
$$;

create or replace function jobd.holds_key(named jobd.unique_keys, at timestamptz) returns boolean
language plpgsql volatile
as $$
-- Whether the job that a row of unique_keys names holds the key. Volatile: it looks at what is committed by now.
begin
    if named.scope = 'window' then
        return named.until > at;
    end if;
    return exists (select from jobd.jobs j
                    where j.id = named.job_id and j.state in ('scheduled', 'ready') and j.unique_for = 'waiting');
end
$$;

create or replace function jobd.scope_on_return(id uuid, unique_key text, kind text, tenant_id text) returns text
language plpgsql volatile set enable_seqscan = off
as $$
-- What becomes of the key of scope `waiting` of a job that comes back from its run: `waiting`, it holds it again, or `lost`.
-- Waits for nobody. The lock is the weakest that those who take the key have to wait for.
begin
    if tenant_id is null then
        perform from jobd.unique_keys k
          where k.unique_key = scope_on_return.unique_key and k.kind = scope_on_return.kind
            and k.tenant_id is null and k.scope = 'waiting' and k.job_id = scope_on_return.id
            for key share skip locked;
    else
        perform from jobd.unique_keys k
          where k.unique_key = scope_on_return.unique_key and k.kind = scope_on_return.kind
            and k.tenant_id = scope_on_return.tenant_id and k.scope = 'waiting' and k.job_id = scope_on_return.id
            for key share skip locked;
    end if;
    return case when found then 'waiting' else 'lost' end;
end
$$;

create or replace function jobd.scope_on_retry(id uuid, unique_key text, kind text, tenant_id text, at timestamptz) returns text
language plpgsql volatile
as $$
-- Take the key of scope `waiting` again for a finished job that an operator puts back. Fails while another one holds it.
declare
    holder uuid := jobd.take_key(unique_key, kind, tenant_id, 'waiting', id, at, at + interval '1 minute');
begin
    if holder is not null then
        raise exception 'unique key % is held by job %', quote_literal(unique_key), holder
            using errcode = 'unique_violation', constraint = 'jobs_unique';
    end if;
    return 'waiting';
end
$$;

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

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
language plpgsql volatile set enable_seqscan = off set jit = off
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
language plpgsql volatile set enable_seqscan = off set jit = off
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

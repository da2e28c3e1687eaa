-- The functions of schema jobd for what code and settings files say of limits, and the way back to it; see functions.sql.
-- The columns `declared` hold what each owner said last, by owner.

create or replace function jobd.declared_by_owner(declared jsonb, declared_by text) returns jsonb
language sql immutable parallel safe
as $$
    -- By owner, also where `declared` is what one owner said, whose name is beside it.
    select case when declared_by_owner.declared_by is not null
                then jsonb_build_object(declared_by_owner.declared_by, coalesce(declared_by_owner.declared, '{}'))
                else coalesce(declared_by_owner.declared, '{}') end
$$;

create or replace function jobd.declared_limits(by_owner jsonb) returns jsonb
language plpgsql immutable parallel safe
as $$
-- What all owners together say. Of two that say the same the one counts whose name is the later one, and of limits that belong
-- together both are from one owner.
declare
    limits jsonb;
    result jsonb := '{}';
begin
    for limits in select o.value from jsonb_each(by_owner) o order by o.key collate "C" loop
        if limits ? 'rate' then
            result := result - 'burst';
        end if;
        if limits ? 'key_rate' then
            result := result - 'key_burst';
        end if;
        if limits ?| '{key_limit,ordered}' then
            result := result - '{key_limit,ordered}'::text[];
        end if;
        result := result || limits;
    end loop;
    return result;
end
$$;

create or replace function jobd.declared_changes(before jsonb, now jsonb) returns jsonb
language plpgsql immutable parallel safe
as $$
-- What is to be set where all together said this before and say that now: null what nobody says any more.
declare
    changes jsonb;
    pair    text[];
begin
    select coalesce(jsonb_object_agg(c.key, coalesce(c.value, 'null')), '{}') into changes
      from (select coalesce(n.key, o.key) as key, n.value
              from jsonb_each(now) n full join jsonb_each(before) o on o.key = n.key
             where o.value is distinct from n.value) c;
    -- These go together, whatever became of the other one at run time.
    foreach pair slice 1 in array '{{rate,burst},{key_rate,key_burst},{key_limit,ordered}}'::text[] loop
        if changes ?| pair then
            changes := changes || jsonb_build_object(pair[1], now -> pair[1], pair[2], now -> pair[2]);
        end if;
    end loop;
    return changes;
end
$$;

create or replace function jobd.set_limits(place text, name text, limits jsonb, by text) returns void
language plpgsql volatile
as $$
-- What set_queue and its like do, by the name of the table.
begin
    case set_limits.place
        when 'queues' then perform jobd.set_queue(set_limits.name, limits, set_limits.by);
        when 'tenants' then perform jobd.set_tenant(set_limits.name, limits, set_limits.by);
        when 'kinds' then perform jobd.set_kind(set_limits.name, limits, set_limits.by);
        when 'use_cases' then perform jobd.set_use_case(set_limits.name, limits, set_limits.by);
    end case;
end
$$;

create or replace function jobd.declare_limits(owner text, declared jsonb) returns integer
language plpgsql volatile
as $$
-- What code or a settings file says of limits: {"queues": {"mail": {"max_running": 10}}, "tenants": {}, ...}. A limit is set where
-- with this all owners together say something else than before, so that what was changed at run time stays until then; one of
-- which nobody says anything any more is taken away. Returns of how many queues, tenants and so on something was set.
#variable_conflict use_column
declare
    place   record;
    changes jsonb;
    number  integer := 0;
begin
    -- Daemons that start together would otherwise meet in another's half of the work.
    perform pg_advisory_xact_lock(1785684580, 6);
    for place in
        with said as (
            select t.key as kind, n.key as name, n.value as limits
              from jsonb_each(declare_limits.declared) t cross join jsonb_each(t.value) n
        ), stood as (
            select 'queues' as kind, q.name, jobd.declared_by_owner(q.declared, q.declared_by) as owners from jobd.queues q
            union all select 'tenants', t.id, jobd.declared_by_owner(t.declared, t.declared_by) from jobd.tenants t
            union all select 'kinds', k.name, jobd.declared_by_owner(k.declared, k.declared_by) from jobd.kinds k
            union all select 'use_cases', u.name, jobd.declared_by_owner(u.declared, u.declared_by) from jobd.use_cases u
        )
        select s.*,
               nullif(case when s.limits = '{}' then s.owners - declare_limits.owner
                           else s.owners || jsonb_build_object(declare_limits.owner, s.limits) end, '{}') as owners_now
          from (select coalesce(n.kind, o.kind) as kind, coalesce(n.name, o.name) as name, coalesce(n.limits, '{}') as limits,
                       coalesce(o.owners -> declare_limits.owner, '{}') as before, coalesce(o.owners, '{}') as owners
                  from said n full join stood o on o.kind = n.kind and o.name = n.name) s
         where s.limits <> s.before
         order by s.kind, s.name
    loop
        changes := jobd.declared_changes(jobd.declared_limits(place.owners), jobd.declared_limits(coalesce(place.owners_now, '{}')));
        if changes <> '{}' then
            number := number + 1;
            perform jobd.set_limits(place.kind, place.name, changes, declare_limits.owner);
        end if;
        case place.kind
            when 'queues' then
                update jobd.queues q set declared = place.owners_now, declared_by = null where q.name = place.name;
            when 'tenants' then
                update jobd.tenants t set declared = place.owners_now, declared_by = null where t.id = place.name;
            when 'kinds' then
                update jobd.kinds k set declared = place.owners_now, declared_by = null where k.name = place.name;
            else
                update jobd.use_cases u set declared = place.owners_now, declared_by = null where u.name = place.name;
        end case;
    end loop;
    return number;
end
$$;

create or replace function jobd.reset_limits(place text, name text, by text default null) returns boolean
language plpgsql volatile
as $$
-- The way back from what was set at run time: all limits of one of queues, tenants, kinds or use_cases are what code and files
-- say of it, or none. A pause stays. False: nothing was ever said of it.
#variable_conflict use_column
declare
    owners jsonb;
    none   jsonb := case reset_limits.place
                        when 'queues' then '{"max_running": null, "rate": null, "burst": null, "fair": null, "weight": null, "delay_tolerance": null}'
                        when 'tenants' then '{"max_pending": null, "on_full": null, "exact": null, "max_running": null, "rate": null, "burst": null, "weight": null}'
                        when 'kinds' then '{"key_limit": null, "ordered": null, "key_rate": null, "key_burst": null}'
                        when 'use_cases' then '{"max_running": null}' end;
begin
    if none is null then
        raise exception 'place = %: queues, tenants, kinds or use_cases', quote_nullable(left(reset_limits.place, 120))
            using errcode = 'invalid_parameter_value';
    end if;
    select s.owners into owners
      from (select jobd.declared_by_owner(q.declared, q.declared_by) as owners from jobd.queues q
             where reset_limits.place = 'queues' and q.name = reset_limits.name
            union all
            select jobd.declared_by_owner(t.declared, t.declared_by) from jobd.tenants t
             where reset_limits.place = 'tenants' and t.id = reset_limits.name
            union all
            select jobd.declared_by_owner(k.declared, k.declared_by) from jobd.kinds k
             where reset_limits.place = 'kinds' and k.name = reset_limits.name
            union all
            select jobd.declared_by_owner(u.declared, u.declared_by) from jobd.use_cases u
             where reset_limits.place = 'use_cases' and u.name = reset_limits.name) s;
    if not found then
        return false;
    end if;
    perform jobd.set_limits(reset_limits.place, reset_limits.name, none || jobd.declared_limits(owners), reset_limits.by);
    return true;
end
$$;

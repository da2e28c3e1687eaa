-- Who did what to many jobs at once. Each batch counts itself in its own transaction, so a row tells exactly how
-- far an operation came, also where it was stopped.

create table jobd.audit (
    id       uuid primary key,
    at       timestamptz not null default clock_timestamp(),
    ended_at timestamptz,
    who      text not null,
    verb     text not null,
    filter   jsonb not null,
    change   jsonb not null default '{}',
    jobs     bigint not null default 0
) with (fillfactor = 50);

create index audit_at on jobd.audit (at);

comment on table jobd.audit is
    'one row an operation on many jobs; kept for 400 days';
comment on column jobd.audit.ended_at is
    'null while it goes on, and for ever where it was stopped';
comment on column jobd.audit.jobs is
    'how many jobs it has changed, as committed';

-- Who may work with the jobs may work with this, as well: grants name tables, and this one is new.
do $$
declare
    held record;
begin
    for held in
        select a.privilege_type, case when a.grantee = 0 then 'public' else quote_ident(r.rolname) end as role
          from pg_class c cross join aclexplode(c.relacl) a left join pg_roles r on r.oid = a.grantee
         where c.oid = 'jobd.jobs'::regclass and a.grantee <> c.relowner
    loop
        execute format('grant %s on jobd.audit to %s', held.privilege_type, held.role);
    end loop;
end
$$;

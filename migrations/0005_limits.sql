-- Limits over all daemons: of queues, keys, use cases and tenants.
--
-- What is running is counted where it runs, in the rows of `jobs`: nothing here is a counter, apart from `rates`, which
-- says until when what was started has spent its rate.

alter table jobd.queues
    add column max_running  integer check (max_running >= 0),
    add column rate_count   integer check (rate_count > 0),
    add column rate_period  interval check (rate_period > '0'),
    add column rate_burst   integer check (rate_burst > 0),
    add column fair         boolean not null default false,
    add column weight       integer not null default 1 check (weight between 1 and 1000),
    add column governed     boolean generated always as (fair or max_running is not null or rate_count is not null) stored,
    add column declared     jsonb,
    add column declared_by  text,
    add column changed_at   timestamptz,
    add column changed_by   text;

comment on column jobd.queues.declared is
    'what the settings said last, and whose they are: what was changed at run time stays until that changes';
comment on column jobd.queues.governed is 'whether its jobs are claimed by claim_governed, one daemon at a time';

alter table jobd.schedules add column concurrency_key text;

create table jobd.tenants (
    id          text primary key,
    max_pending integer check (max_pending >= 0),
    on_full     text not null default 'refuse' check (on_full in ('refuse', 'shed', 'delay')),
    exact       boolean not null default true,
    max_running integer check (max_running >= 0),
    rate_count  integer check (rate_count > 0),
    rate_period interval check (rate_period > '0'),
    rate_burst  integer check (rate_burst > 0),
    weight      integer not null default 1 check (weight between 1 and 1000),
    governed    boolean generated always as (max_running is not null or rate_count is not null) stored,
    declared    jsonb,
    declared_by text,
    changed_at  timestamptz,
    changed_by  text
);

create index tenants_governed on jobd.tenants (id) where governed;

comment on column jobd.tenants.governed is
    'whether its running jobs are limited: while there is one such tenant every queue is governed';
comment on column jobd.tenants.exact is
    'whether max_pending holds exactly, at the price that enqueues of this tenant wait for each other';

create table jobd.kinds (
    name        text primary key,
    key_limit   integer not null default 1 check (key_limit > 0),
    ordered     boolean not null default false,
    rate_count  integer check (rate_count > 0),
    rate_period interval check (rate_period > '0'),
    rate_burst  integer check (rate_burst > 0),
    declared    jsonb,
    declared_by text,
    changed_at  timestamptz,
    changed_by  text
);

comment on table jobd.kinds is 'how many jobs of one concurrency key may run, for kinds that say so; 1 for all others';
comment on column jobd.kinds.declared is 'what the code said last; see jobd.queues';

create table jobd.use_cases (
    name        text primary key,
    max_running integer check (max_running >= 0),
    declared    jsonb,
    declared_by text,
    changed_at  timestamptz,
    changed_by  text
);

comment on table jobd.use_cases is 'how many jobs of a use case may run; 10 of all others';

create table jobd.rates (
    scope       text not null check (scope in ('queue', 'tenant', 'key')),
    name        text not null,
    spent_until timestamptz not null,
    primary key (scope, name)
) with (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0.1);

comment on column jobd.rates.spent_until is 'when all that was started would have been, one after the other at the rate';

create table jobd.turns (
    queue text not null,
    scope text not null check (scope in ('key', 'tenant')),
    after text not null,
    primary key (queue, scope)
);

comment on table jobd.turns is
    'up to which key or tenant those of a queue were looked through, where it has too many for one claim';

-- Ready jobs that have a key or a use case are left out of the plain claim, and found by these; those of a tenant also
-- by theirs. A job with none of them pays for none.
drop index jobd.jobs_ready;
create index jobs_ready on jobd.jobs (queue, priority desc, deadline_at, id)
    where state = 'ready' and crashes = 0 and concurrency_key is null and use_case is null;
create index jobs_keyed on jobd.jobs (queue, priority desc, deadline_at, id)
    where state = 'ready' and (concurrency_key is not null or use_case is not null);
create index jobs_key on jobd.jobs (concurrency_key, id)
    where concurrency_key is not null and state in ('scheduled', 'ready');
create index jobs_key_ready on jobd.jobs (queue, concurrency_key, priority desc, deadline_at, id)
    where state = 'ready' and concurrency_key is not null;
create index jobs_use_case_ready on jobd.jobs (queue, use_case, priority desc, deadline_at, id)
    where state = 'ready' and use_case is not null;
-- Of those that wait: whether a tenant may have more of them. What runs is no part of it, or each claim would write to it.
drop index jobd.jobs_tenant;
create index jobs_tenant on jobd.jobs (tenant_id, queue)
    where tenant_id is not null and state in ('scheduled', 'ready');
create index jobs_fair on jobd.jobs (queue, tenant_id, priority desc, deadline_at, id)
    where state = 'ready' and tenant_id is not null;

do $$
declare
    held record;
begin
    for held in
        select a.privilege_type, case when a.grantee = 0 then 'public' else quote_ident(r.rolname) end as role
          from pg_class c cross join aclexplode(c.relacl) a left join pg_roles r on r.oid = a.grantee
         where c.oid = 'jobd.jobs'::regclass and a.grantee <> c.relowner
    loop
        execute format('grant %s on jobd.tenants, jobd.kinds, jobd.use_cases, jobd.rates, jobd.turns to %s', held.privilege_type, held.role);
    end loop;
end
$$;

-- Admission: what a tenant has no room for and is delayed becomes due at a pace of its own. And a tolerance for all
-- jobs of a queue.

alter table jobd.rates drop constraint rates_scope_check;
alter table jobd.rates add constraint rates_scope_check check (scope in ('queue', 'tenant', 'key', 'pending'));

alter table jobd.queues
    add column delay_tolerance interval check (delay_tolerance between interval '0' and interval '36525 days');

comment on column jobd.queues.delay_tolerance is 'that of jobs which say none; for enqueues in SQL, and schedules';

create index tenants_limited on jobd.tenants (id) where max_pending is not null;

comment on column jobd.tenants.max_pending is 'how many of its jobs may wait, scheduled or ready; null, any number';
comment on column jobd.tenants.on_full is
    'what becomes of more: refuse raises; shed, they end dead, unrun; delay, max_pending of them become due a minute';

-- The application's own tables, beside jobd's in the same database. Applied at every start.

create schema if not exists klaus;

create table if not exists klaus.exchanges (
    id            bigint generated always as identity primary key,
    name          text not null,
    state         text not null default 'open' check (state in ('open', 'matched', 'completed')),
    timezone      text not null,
    exchange_date timestamp not null,
    reminder_days int[] not null default '{7,3,1}',
    reminder_time time,
    admin_email   text not null,
    completed_at  timestamptz,
    warned_at     timestamptz
);

comment on column klaus.exchanges.exchange_date is 'what a clock on the wall in that time zone shows';
comment on column klaus.exchanges.reminder_time is 'null: reminders come at the time of day of the exchange';
comment on column klaus.exchanges.warned_at is 'when the admin was told of the coming purge';

create table if not exists klaus.participants (
    id               bigint generated always as identity primary key,
    exchange_id      bigint not null references klaus.exchanges on delete cascade,
    name             text not null,
    email            text not null,
    reminder_enabled boolean not null default true,
    withdrawn_at     timestamptz
);

create index if not exists participants_exchange on klaus.participants (exchange_id);

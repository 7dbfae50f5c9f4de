-- Organisations and teams that were made at run time. The row of an organisation itself has no team.
create table tenants (
    org text collate "C" not null,
    team text collate "C" not null,
    attributes text collate "C" not null,
    created_at double precision not null,
    revoked_at double precision,
    version bigint not null,
    primary key (org, team)
);
create index tenants_version on tenants (version);

-- What a key or a team has spent this month is asked for when a gateway first meets its budget: hours of others are not
-- to be read for it. (Those of a user are in the ledger alone, by `ledger_user`.)
create index ledger_hours_key on ledger_hours (key_id, hour);
create index ledger_hours_team on ledger_hours (org, team, hour);

"""`penstock cost`: what people and programs are shown, what goes into files, and what it says about an invoice."""

import asyncio
import csv
import io
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from penstock.core.clock import SystemClock
from penstock.pricing.focus import FOCUS, NOT_APPLICABLE
from penstock.stores.begun import GATEWAY_CRASHED
from penstock.stores.databases import open_database
from penstock.stores.entry import Entry
from penstock.stores.ledger import HOUR_MICROS, SqlLedger
from penstock.stores.migrate import migrate
from penstock.stores.sql import Statement

JANUARY = int(datetime(2027, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
DAY = 24 * HOUR_MICROS
IN_JANUARY = ("--from", "2027-01", "--to", "2027-02")
CONFIG = """\
models:
  chat: { deployments: [paid] }
  own: { deployments: [ours] }
deployments:
  paid: { provider: openai, served: gpt-5-mini, key: "env:KEY" }
  ours: { model: tiny }
"""


def with_ledger(work, path="penstock.db"):
    async def main():
        database = await open_database(str(path))
        try:
            await migrate(database, now=0.0)
            return await work(SqlLedger(database), database)
        finally:
            await database.close()

    return asyncio.run(main())


def keep(*entries):
    with_ledger(lambda ledger, _: ledger.append(entries))


def entry(n, day=0, hour=0, **fields):
    return Entry(f"r{n}", JANUARY + day * DAY + hour * HOUR_MICROS + n, **fields)


@pytest.fixture
def books(penstock):
    """Three priced requests of two teams, one without a price, one estimated."""
    keep(
        entry(1, team="search", model="chat", deployment="paid", input_tokens=10, output_tokens=2, cost_nanos=10**9),
        entry(2, team="search", model="chat", deployment="paid", input_tokens=5, cost_nanos=5 * 10**8, day=1),
        entry(3, team="ads", model="chat", deployment="paid", cost_nanos=123_456_789, usage_source="estimate", day=1),
        entry(4, team="ads", model="own", deployment="ours", input_tokens=7, output_tokens=3, day=2),
    )
    return penstock


def test_the_last_line_is_the_total_and_what_has_no_price_is_not_zero_dollars(books):
    ran = books("cost", "--by", "team,model", *IN_JANUARY)
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "team    model  requests  unpriced  estimated  input  output          cost",
        "search  chat          2         0          0     15       2  $1.500000000",
        "ads     chat          1         0          1      0       0  $0.123456789",
        "ads     own           1         1          0      7       3      no price",
        "total                 4         1          1     22       5  $1.623456789",
    ]
    assert "1 of 4 requests have no price: they are in no cost, and were not free." in ran.err
    assert "The tokens of 1 of 4 requests were estimated" in ran.err


def test_the_rest_is_shown_as_others_and_still_adds_up(books):
    lines = books("cost", "--by", "model,team", "--top", "1", *IN_JANUARY).out.splitlines()
    assert lines[1].split() == ["chat", "search", "2", "0", "0", "15", "2", "$1.500000000"]
    assert lines[2].split() == ["2", "others", "2", "1", "1", "7", "3", "$0.123456789"]
    assert lines[3].split() == ["total", "4", "1", "1", "22", "5", "$1.623456789"]


def test_only_what_is_asked_for_is_counted(books):
    def cost(*options):
        ran = books("cost", "--json", *IN_JANUARY, *options)
        assert ran.code == 0, ran.err
        return json.loads(ran.out)["total"]["requests"]

    assert cost("--where", "team=search") == 2
    assert cost("--where", "team=search", "--where", "team=ads") == 4
    assert cost("--where", "team=ads", "--where", "model=own") == 1
    assert cost("--where", "day=2027-01-02") == 2
    assert cost("--where", "hour=2027-01-02T00:00") == 2
    assert cost("--where", "status=200", "--where", "error=") == 4
    assert cost("--where", "tag:project=") == 4
    assert cost("--where", "team=") == 0
    assert cost("--from", "2027-01-02", "--to", "2027-01-03") == 2
    assert cost("--from", "2027-01-02", "--to", "2027-01-02") == 0


def test_days_and_hours_are_those_of_the_zone(books):
    said = json.loads(books("cost", "--by", "day,hour", "--json", *IN_JANUARY, "--zone", "America/New_York").out)
    assert {(one["day"], one["hour"]): one["requests"] for one in said["groups"]} == {
        ("2027-01-01", "2027-01-01T19:00-05:00"): 2,
        ("2027-01-02", "2027-01-02T19:00-05:00"): 1,
    }
    assert (said["since"], said["zone"]) == ("2027-01-01T00:00:00-05:00", "America/New_York")


def test_the_last_days_are_those_up_to_now(books):
    keep(Entry("now", int(SystemClock.wall() * 1e6) - HOUR_MICROS, cost_nanos=7))
    assert books("cost", "--last", "2h").out.splitlines()[-1].endswith("$0.000000007")
    assert books("cost", "--last", "1m").out.splitlines()[-1].endswith("$0.00")
    assert books("cost").out.splitlines()[-1].split()[1] == "1"  # of 30 days


def test_json_has_costs_as_text_and_null_where_there_is_none(books):
    said = json.loads(books("cost", "--by", "model", "--top", "1", "--json", *IN_JANUARY).out)
    assert said["by"] == ["model"]
    (chat,) = said["groups"]
    assert (chat["model"], chat["cost_nanos"], chat["cost"]) == ("chat", 1_623_456_789, "1.623456789")
    assert (said["others"]["groups"], said["others"]["unpriced"], said["others"]["cost"]) == (1, 1, None)
    assert said["total"]["cost_nanos"] == 1_623_456_789


def test_csv_says_in_each_row_what_it_is(books):
    rows = list(csv.DictReader(io.StringIO(books("cost", "--by", "team", "--csv", *IN_JANUARY).out)))
    assert [(row["row"], row["team"], row["requests"], row["cost"]) for row in rows] == [
        ("group", "search", "2", "1.500000000"),
        ("group", "ads", "2", "0.123456789"),
        ("total", "", "4", "1.623456789"),
    ]


HOSTILE = [
    "=cmd|' /C calc'!A1",
    "+1",
    "-1",
    "@x",
    "a\x1b[2Jb\x07",
    "\u202eabc",
    "x,y\n\"z'",
    "'); drop table ledger; --",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_callers_wrote_moves_no_cursor_is_no_formula_and_survives_as_it_was(penstock, hostile):
    keep(entry(1, feature=hostile, model=hostile, cost_nanos=5), entry(2, feature="other", cost_nanos=1))
    ran = penstock("cost", "--by", "feature", "--where", f"feature={hostile}", *IN_JANUARY)
    assert (ran.code, len(ran.out.splitlines())) == (0, 3)
    assert all(one.isprintable() or one == "\n" for one in ran.out)
    said = json.loads(penstock("cost", "--by", "feature", "--json", *IN_JANUARY).out)
    assert said["groups"][0]["feature"] == hostile
    quote = "'" if hostile.startswith(("=", "+", "-", "@")) else ""
    rows = list(csv.DictReader(io.StringIO(penstock("cost", "--by", "feature", "--csv", *IN_JANUARY).out, newline="")))
    assert rows[0]["feature"] == quote + hostile
    for kind, column in (("csv", "feature"), ("focus", "ServiceName")):
        assert penstock("cost", "export", "--format", kind, "out.csv", *IN_JANUARY).code == 0
        with Path("out.csv").open(newline="", encoding="utf-8") as file:
            assert [row[column] for row in csv.DictReader(file)].count(quote + hostile) == 1


def test_requests_are_exported_one_by_one_and_a_file_is_whole_or_not_there(books):
    ran = books("cost", "export", "--format", "csv", "out.csv", *IN_JANUARY)
    assert (ran.code, ran.out) == (0, "Wrote 4 rows to out.csv.\n")
    rows = list(csv.DictReader(Path("out.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["at"] for row in rows][:2] == ["2027-01-01T00:00:00.000001Z", "2027-01-02T00:00:00.000002Z"]
    assert [(row["cost_nanos"], row["cost"]) for row in rows][2:] == [("123456789", "0.123456789"), ("", "")]
    assert books("cost", "export", "--format", "csv", "no/such/out.csv", *IN_JANUARY).code == 2
    assert [path.name for path in Path().glob("*out.csv*")] == ["out.csv"]
    assert books("cost", "export", "--format", "csv", "-", "--where", "team=search", *IN_JANUARY).out.count("\n") == 3


def test_parquet_has_exact_decimals_and_times(books):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert books("cost", "export", "--format", "parquet", "out.parquet", *IN_JANUARY).code == 0
    table = parquet.read_table("out.parquet")
    assert table.column("cost").to_pylist() == [
        Decimal("1.000000000"),
        Decimal("0.500000000"),
        Decimal("0.123456789"),
        None,
    ]
    assert table.column("at").to_pylist()[0] == datetime(2027, 1, 1, microsecond=1, tzinfo=UTC)
    assert table.column("input_tokens").to_pylist() == [10, 5, 0, 7]
    ran = books("cost", "export", "--format", "parquet", "-", *IN_JANUARY)
    assert (ran.code, ran.err) == (2, "Parquet is written to a file: name one\n")


def test_focus_has_every_column_or_says_why_not_and_no_cost_where_there_is_no_price(books):
    Path("penstock.yaml").write_text(CONFIG)
    ran = books("cost", "export", "--format", "focus", "focus.csv", "--account", "acme", *IN_JANUARY)
    assert (ran.code, ran.out) == (0, "Wrote 4 rows to focus.csv.\n")
    rows = list(csv.DictReader(Path("focus.csv").read_text(encoding="utf-8").splitlines()))
    first, *_, last = rows
    assert {name: first[name] for name in ("BilledCost", "ListCost", "ChargePeriodStart", "ChargePeriodEnd")} == {
        "BilledCost": "1.000000000",
        "ListCost": "1.000000000",
        "ChargePeriodStart": "2027-01-01T00:00:00Z",
        "ChargePeriodEnd": "2027-01-01T01:00:00Z",
    }
    assert (first["BillingPeriodStart"], first["BillingPeriodEnd"]) == ("2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z")
    assert (first["ProviderName"], first["ConsumedQuantity"], first["ConsumedUnit"]) == ("openai", "12", "Tokens")
    assert (first["BillingAccountId"], first["SubAccountId"], first["SubAccountType"]) == ("acme", "search", "Team")
    assert (last["BilledCost"], last["x_UnpricedRequests"], last["ProviderName"]) == ("", "1", "Self-hosted")
    names = [column.name for column in FOCUS]
    ours = [name for name in names if name.startswith("x_")]
    assert names == sorted(names[: -len(ours)]) + ours  # their own order, then ours
    assert not set(names) & set(NOT_APPLICABLE)
    assert len(names) - len(ours) + len(NOT_APPLICABLE) == 57  # of FOCUS 1.2


MANDATORY = (
    "BilledCost BillingAccountId BillingAccountName BillingCurrency BillingPeriodEnd BillingPeriodStart ChargeCategory "
    "ChargeClass ChargeDescription ChargePeriodEnd ChargePeriodStart ContractedCost EffectiveCost InvoiceIssuerName "
    "ListCost PricingQuantity PricingUnit ProviderName PublisherName ServiceCategory ServiceName"
)


def test_every_mandatory_column_of_focus_is_written():
    assert set(MANDATORY.split()) <= {column.name for column in FOCUS}


def test_focus_goes_to_parquet_by_the_name_of_the_file_and_adds_up(books):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert books("cost", "export", "--format", "focus", "focus.parquet", *IN_JANUARY).code == 0
    table = parquet.read_table("focus.parquet")
    assert sum(filter(None, table.column("BilledCost").to_pylist())) == Decimal("1.623456789")
    assert table.column("ChargePeriodStart").to_pylist()[0] == datetime(2027, 1, 1, tzinfo=UTC)


# invoices


def invoice(text, name="invoice.csv"):
    Path(name).write_text(text, encoding="utf-8-sig")
    return name


OPENAI = "start_time,end_time,start_time_iso,amount_value,amount_currency,line_item,project_id\n"
ANTHROPIC = "usage_date_utc,model,workspace,token_type,cost_usd,list_price_usd\n"


def test_an_invoice_that_agrees_exits_with_zero(books):
    Path("penstock.yaml").write_text(CONFIG)
    name = invoice(
        OPENAI
        + '1798761600,1798848000,2027-01-01T00:00:00+00:00,0.7,usd,"gpt-5-mini-2026-08-07, input",p\n'
        + '1798761600,1798848000,2027-01-01T00:00:00+00:00,0.3,usd,"gpt-5-mini-2026-08-07, output",p\n'
        + '1798848000,1798934400,2027-01-02T00:00:00+00:00,0.62345678900000001,usd,"gpt-5-mini-2026-08-07, input",p\n'
    )
    ran = books("cost", "reconcile", name, "--provider", "openai")
    assert ran.code == 0, ran.out + ran.err
    assert ran.out.splitlines()[-1] == (
        "Invoice $1.623456789, ledger $1.623456789, difference $0.00: 0 of 2 lines are beyond the tolerance."
    )
    assert "    the tokens of 1 of 2 requests were estimated" in ran.out.splitlines()


def test_a_difference_exits_with_one_and_says_what_it_may_come_from(books):
    name = invoice(
        ANTHROPIC
        + "2027-01-01,Chat,Default,output,1.00,1.00\n2027-01-02,Chat,Default,output,0.62,1.00\n"
        + "2027-01-03,Own,Default,output,2.50,2.50\n2027-01-03,Nobody 4.5,Default,output,0.25,0.25\n"
    )
    ran = books("cost", "reconcile", name)
    assert ran.code == 1
    assert ran.out.splitlines() == [
        "2027-01-02  chat: invoice $0.62, ledger $0.623456789 (2 requests), agrees",
        "    the tokens of 1 of 2 requests were estimated",
        "2027-01-03  Nobody 4.5: invoice $0.25, ledger $0.00 (0 requests), +$0.25",
        "    the ledger has no request under this name (tell it with --same)",
        "2027-01-03  own: invoice $2.50, ledger $0.00 (1 requests), +$2.50",
        "    1 of 1 requests have no price in the ledger",
        "Invoice $4.37, ledger $1.623456789, difference +$2.746543211: 2 of 4 lines are beyond the tolerance.",
    ]
    said = json.loads(books("cost", "reconcile", name, "--json", "--same", "Nobody 4.5=own").out)
    assert (said["within"], said["difference"]) == (False, "2.746543211")
    assert [(line["model"], line["invoice"], line["within"]) for line in said["lines"]] == [
        ("chat", "1.000000000", True),
        ("chat", "0.620000000", True),
        ("own", "2.750000000", False),
    ]


def test_days_of_another_zone_are_recognised(penstock):
    """Every evening's requests, which in New York belong to the day before."""
    keep(*(entry(n, day=n, hour=2, model="m", cost_nanos=(n + 1) * 10**9) for n in range(5)))
    lines = "".join(f"{datetime(2027, 1, 1) + timedelta(days=n - 1):%Y-%m-%d},{n + 1}\n" for n in range(5))  # noqa: DTZ001
    name = invoice(f"Date,USD\n{lines}")
    columns = ("--day-column", "date", "--amount-column", "usd")
    ran = penstock("cost", "reconcile", name, *columns)
    assert ran.code == 1
    assert "the days agree when they begin at midnight of UTC-3: try --zone Etc/GMT+3" in ran.out.splitlines()
    assert penstock("cost", "reconcile", name, *columns, "--zone", "Etc/GMT+3").code == 0


def test_a_price_that_is_another_one_every_day_is_recognised(penstock):
    keep(*(entry(n, day=n, model="m", cost_nanos=(n + 1) * 10**9) for n in range(4)))
    lines = "".join(f"2027-01-{n + 1:02},m,{(n + 1) * 0.8:.2f}\n" for n in range(4))
    name = invoice(f"day,model,dollars\n{lines}")
    columns = ("--day-column", "day", "--amount-column", "dollars", "--model-column", "model")
    ran = penstock("cost", "reconcile", name, *columns)
    assert (ran.code, ran.out.count("the invoice is 0.8 x the ledger every day: another price")) == (1, 4)
    assert penstock("cost", "reconcile", name, *columns, "--tolerance", "25%").code == 0
    assert penstock("cost", "reconcile", name, *columns, "--tolerance", "$0.80").code == 1  # each, and the sum: $2.00
    assert penstock("cost", "reconcile", name, *columns, "--tolerance", "$2.00").code == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", "its columns are of no invoice that is known here"),
        (ANTHROPIC, "there is no line in it"),
        (ANTHROPIC + "yesterday,m,w,t,1,1\n", "line 2: not a day such as 2027-01-31: 'yesterday'"),
        (ANTHROPIC + "2027-01-01,m,w,t,1e9999999,1\n", "line 2: not an amount of dollars: '1e9999999'"),
        (ANTHROPIC + "2027-01-01,m,w,t,NaN,1\n", "line 2: not an amount of dollars: 'NaN'"),
        (ANTHROPIC + "2027-01-01,m,w,t,=1+1,1\n", "line 2: not an amount of dollars: '=1+1'"),
        (ANTHROPIC + "2027-01-01," + "m" * 200_000 + ",w,t,1,1\n", "field larger than field limit"),
        (OPENAI + "1798761600,,2027-01-01T00:00:00+00:00,1,eur,m,p\n", "line 2: the currency is 'eur'"),
        (ANTHROPIC + "1999-01-01,m,w,t,1,1\n2027-01-01,m,w,t,1,1\n", "that are more than 400 days"),
        (ANTHROPIC + "1969-12-31,m,w,t,1,1\n", "before there was a ledger"),
        ("", "its columns are of no invoice"),
    ],
)
def test_an_invoice_that_cannot_be_read_is_a_mistake_that_names_its_line(books, text, words):
    ran = books("cost", "reconcile", invoice(text))
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err and "Traceback" not in ran.err


# corrections

IN_THE_PAST = ("--complete", "2025-01-01..2025-01-02")


@pytest.fixture
def crashed(penstock):
    """Two requests whose worker was killed, of two providers, and one that ended well."""
    at = int(datetime(2025, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
    killed = {"model": "chat", "error": GATEWAY_CRASHED, "usage_source": "estimate", "input_tokens": 10}
    keep(
        Entry("r1", at, deployment="paid", cost_nanos=9_000, output_tokens=100, **killed),
        Entry("r2", at, deployment="other", cost_nanos=5_000, output_tokens=50, **killed),
        Entry("r3", at, deployment="paid", model="chat", cost_nanos=700),
    )
    return penstock


def report(*lines, name="report.csv"):
    Path(name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8-sig")
    return name


def total(penstock):
    return json.loads(penstock("cost", "--json", "--from", "2025-01").out)["total"]


def test_a_report_makes_the_ledger_say_what_the_provider_does_and_again_changes_nothing(crashed):
    name = report("request_id,cost_nanos", "r1,4000", "r3,700", "r9,1")
    ran = crashed("cost", "correct", name)
    assert (ran.code, ran.out) == (0, "Corrected 1 request by -$0.000005; of 1 the ledger said the same.\n")
    assert ran.err == "The ledger does not have 1 request of the report: r9.\n"
    assert (total(crashed)["cost_nanos"], total(crashed)["requests"]) == (4_000 + 5_000 + 700, 3)
    again = crashed("cost", "correct", name)
    assert again.out == "Corrected 0 requests by $0.00; of 2 the ledger said the same.\n"
    assert total(crashed)["cost_nanos"] == 4_000 + 5_000 + 700


def test_what_a_complete_report_does_not_name_costs_nothing_where_it_is_complete(crashed):
    name = report("request_id,cost_nanos", "r3,700")
    assert crashed("cost", "correct", name).out.startswith("Corrected 0 requests")
    before = crashed("cost", "correct", name, "--complete", "2024-12-31..2025-01-01")
    assert before.out.startswith("Corrected 0 requests")
    ran = crashed("cost", "correct", name, *IN_THE_PAST, "--where", "deployment=paid")
    assert ran.out.splitlines() == [
        "Corrected 1 request by -$0.000009; of 1 the ledger said the same.",
        "Of those, 1 request crashed before the provider got it, and cost nothing.",
    ]
    assert total(crashed)["cost_nanos"] == 5_000 + 700


def test_a_dry_run_says_what_would_be_corrected_and_writes_nothing(crashed):
    name = report("request_id,cost_nanos", "r1,9001", "r8,1")
    ran = crashed("cost", "correct", name, "--dry-run", "--json", *IN_THE_PAST)
    assert json.loads(ran.out) == {
        "dry_run": True,
        "agreed": 0,
        "corrected": 2,
        "unknown": 1,
        "some_unknown": ["r8"],
        "unpriced": 0,
        "never_got": 1,
        "difference_nanos": -4_999,
        "difference": "-0.000004999",
    }
    assert crashed("cost", "correct", name, "--dry-run").out.startswith("Would correct 1 request by +$0.000000001;")
    assert total(crashed)["cost_nanos"] == 9_000 + 5_000 + 700


def test_tokens_that_a_report_counts_are_paid_for_as_the_configuration_says(crashed):
    price = "{ input: $1/M, output: $3/M }"
    Path("penstock.yaml").write_text(CONFIG.replace("paid: {", f"paid: {{ price: {price},"))
    name = report('{"meta": "r1", "input_tokens": 4, "in": 1}', '{"meta": "r2", "in": 7}', name="report.jsonl")
    ran = crashed("cost", "correct", name, "--column", "request_id=meta", "--column", "output_tokens=in")
    assert ran.out.startswith("Corrected 1 request by -$0.000002;")  # 4 x 1,000 + 1 x 3,000, and not 9,000
    assert ran.err == "Of 1 request nobody says what it cost; it was left as it is.\n"
    assert (total(crashed)["cost_nanos"], total(crashed)["output_tokens"]) == (7_000 + 5_000 + 700, 1 + 50)


@pytest.mark.parametrize(
    ("lines", "options", "words"),
    [
        (["request_id,cost", "r1,much"], [], "report.csv: line 2: cost is an amount of dollars, not 'much'"),
        (["id,cost", "r1,1"], [], "report.csv: line 2: it has no 'request_id'"),
        ([], ["--column", "id=request_id"], "--column is OURS=THEIRS; ours are request_id, input_tokens"),
        ([], ["--where", "model=m"], "it belongs to --complete"),
        ([], ["--complete", "2025-01-01"], "--complete is FROM..TO"),
        ([], ["--complete", "2025-01-02..2025-01-01"], "ends before it begins"),
        ([], ["--complete", "2025-01-01..9999-01-01"], "ends in the future"),
        ([], [*IN_THE_PAST, "--where", "model=a", "--where", "model=b"], "one text for each word"),
        ([], [*IN_THE_PAST, "--where", "day=2025-01-01"], "one text for each word"),
        ([], [*IN_THE_PAST, "--where", "tag:a=b"], "one text for each word"),
    ],
)
def test_a_report_that_cannot_be_applied_is_a_mistake_and_changes_nothing(crashed, lines, options, words):
    ran = crashed("cost", "correct", report(*lines), *options)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err and "Traceback" not in ran.err
    assert total(crashed)["cost_nanos"] == 9_000 + 5_000 + 700


# the books themselves


def test_hours_that_are_wrong_are_told_and_made_anew(books):
    assert books("cost", "rebuild").out == "Every hour is what its rows say.\n"
    with_ledger(
        lambda _, database: database.write([Statement("update ledger_hours set cost_nanos = 1, estimated = 9")])
    )
    ran = books("cost", "rebuild", "--check")
    assert ran.code == 1
    assert ran.out.splitlines() == [f"2027-01-0{day}T00:00Z was not what its rows say." for day in (1, 2, 3)]
    ran = books("cost", "rebuild")
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "Made 3 hours anew from their rows.")
    assert books("cost", "rebuild", "--check").code == 0
    assert books("cost", *IN_JANUARY).out.splitlines()[-1].endswith("$1.623456789")


def test_old_requests_go_and_their_hours_stay(penstock):
    now = int(SystemClock.wall() * 1e6)
    keep(*(Entry(f"r{n}", now - n * DAY, team="a", user_hash="u", cost_nanos=1) for n in range(1, 11)))
    ran = penstock("cost", "prune", "--keep", "5d", "--yes")
    assert (ran.code, ran.out.split(" from ")[0]) == (0, "Deleted 5 requests")  # the hour of the fifth is not over
    assert penstock("cost", "--by", "team", "--last", "11d").out.splitlines()[-1].endswith("$0.00000001")
    by_user = penstock("cost", "--by", "user", "--last", "11d")
    assert by_user.out.splitlines()[-1].endswith("$0.000000005")
    assert "were let go and are not in this" in by_user.err
    assert "were let go and are not in this" in penstock("cost", "export", "--format", "csv", "x.csv").err
    assert "Deleted 4 hourly sums." in penstock("cost", "prune", "--keep", "5d", "--keep-hours", "6d", "--yes").out


def test_nothing_is_deleted_without_being_asked(books, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    ran = books("cost", "prune", "--keep", "0s")
    assert ran.code == 130
    assert books("cost", *IN_JANUARY).out.splitlines()[-1].split()[1] == "4"


# what was asked wrongly


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--by", "tema"], "the ledger cannot be asked by 'tema'. Did you mean `team`?"),
        (["--by", "team", "--by", "team"], "--by names something twice"),
        (["--by", "tag:"], "the ledger cannot be asked by 'tag:'"),
        (["--by", "x\x1b[2J"], "'x\\x1b[2J'"),
        (["--where", "team"], "--where is WHAT=VALUE"),
        (["--where", "status=ok"], "--where status= wants a number"),
        (["--where", "day=today"], "--where day= wants a day"),
        (["--last", "30"], "--last is a duration with its unit"),
        (["--last", "1d", "--to", "2027-01"], "--last is up to now"),
        (["--from", "soon"], "--from is a day such as 2027-01-31"),
        (["--from", "2027-02", "--to", "2027-01"], "the range ends before it begins"),
        (["--zone", "../../etc/passwd"], "there is no time zone '../../etc/passwd'"),
        (["--json", "--csv"], "--json or --csv, not both"),
        (["--last", "1d", "rebuild"], "options belong behind `rebuild`"),
        (["prune", "--keep", "9d", "--keep-hours", "1d", "--yes"], "--keep-hours is longer than --keep"),
        (["reconcile", "none.csv"], "there is no none.csv"),
        (["reconcile", "none.csv", "--tolerance", "much"], "--tolerance is a percentage"),
        (["reconcile", "none.csv", "--provider", "openai"], "has no deployment of the provider"),
    ],
)
def test_a_mistake_is_told_plainly(books, arguments, words):
    ran = books("cost", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err and "Traceback" not in ran.err


def test_the_database_is_beside_the_configuration_unless_it_is_told(penstock, tmp_path):
    ran = penstock("cost")
    assert (ran.code, ran.err) == (2, "there is no penstock.db. `penstock db migrate` makes it.\n")
    Path("there").mkdir()
    with_ledger(lambda ledger, _: ledger.append([entry(1, cost_nanos=5)]), "there/penstock.db")
    assert penstock("cost", "--config", "there/penstock.yaml", *IN_JANUARY).code == 0
    assert penstock("cost", "--database", str(tmp_path / "there" / "penstock.db"), *IN_JANUARY).code == 0


@pytest.mark.parametrize("where", ["books.db", "sqlite:///books.db", "env:BOOKS", "file:{folder}/secret"])
def test_the_configuration_says_where_the_database_is(penstock, tmp_path, monkeypatch, where):
    Path("there").mkdir()
    with_ledger(lambda ledger, _: ledger.append([entry(1, cost_nanos=5)]), "there/books.db")
    monkeypatch.setenv("BOOKS", "books.db")
    Path("secret").write_text(f"{tmp_path}/there/books.db\n")
    Path("there/penstock.yaml").write_text(f"{CONFIG}store: {{ database: '{where.format(folder=tmp_path)}' }}\n")
    ran = penstock("cost", "--config", "there/penstock.yaml", *IN_JANUARY)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[-1].endswith("$0.000000005")
    monkeypatch.delenv("BOOKS")
    if where == "env:BOOKS":
        ran = penstock("cost", "--config", "there/penstock.yaml")
        assert ran.code == 2
        assert "store.database of there/penstock.yaml: the environment variable BOOKS is not set" in ran.err


def test_the_retention_is_the_one_of_the_configuration(penstock):
    now = int(SystemClock.wall() * 1e6)
    keep(*(Entry(f"r{n}", now - n * DAY) for n in range(0, 500, 100)))
    assert penstock("cost", "prune", "--yes").out.startswith("Deleted 0 requests")  # 400 days, and the hour is not over
    Path("penstock.yaml").write_text(f"{CONFIG}cost: {{ ledger_retention: 150d }}\n")
    assert penstock("cost", "prune", "--yes").out.startswith("Deleted 3 requests")


def test_a_database_that_is_behind_says_what_to_do(penstock):
    Path("penstock.db").touch()
    ran = penstock("cost")
    assert ran.code == 1
    assert "Run `penstock db migrate`" in ran.err

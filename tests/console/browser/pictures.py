"""Takes the pictures of docs/console.md anew: `python -m tests.console.browser.pictures`. Needs what the tests need."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests.console.browser.conftest import CHROMIUM
from tests.console.browser.fake_api import GATEWAY_KEY, KEY, FakeApi
from tests.console.browser.world import NOW

FOLDER = Path(__file__).parents[3] / "docs" / "pictures"
COLOURS = 256  # enough for flat areas and some lines, at a third of the bytes


def take(page: Page, name: str) -> None:
    page.wait_for_function("() => !document.querySelector('.loading')")
    page.evaluate("() => document.activeElement.blur()")
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    palette = picture.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    palette.save(FOLDER / f"console-{name}.png", optimize=True)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with FakeApi() as api, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for scheme, views in (("light", ("overview", "cost")), ("dark", ("request", "playground"))):
            context = browser.new_context(
                viewport={"width": 1280, "height": 820},
                color_scheme=scheme,
                locale="en-GB",
                timezone_id="UTC",
                reduced_motion="reduce",
            )
            page = context.new_page()
            page.clock.set_fixed_time(NOW)
            page.goto(f"{api.url}/console")
            page.fill("input[name=secret]", KEY)
            page.press("input[name=secret]", "Enter")
            page.wait_for_selector(".shell")
            tried_twice = next(one["request_id"] for one in api.world.outcomes if len(one["attempts"]) == 2)
            places = {"overview": "", "request": f"requests/{tried_twice}", "playground": "playground?models=chat,code"}
            for view in views:
                page.goto(f"{api.url}/console/{places.get(view, view)}")
                page.wait_for_selector("h1")
                if view == "playground":
                    page.get_by_label("Message", exact=True).fill("Where does water go?")
                    page.get_by_label("Gateway key").fill(GATEWAY_KEY)
                    page.get_by_role("button", name="Ask 2 models").click()
                    page.get_by_text("Finished").nth(1).wait_for()
                take(page, view)
            context.close()
        browser.close()


if __name__ == "__main__":
    main()

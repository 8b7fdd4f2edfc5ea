"""Parts of a report as Chromium shows them, side by side: docs/figures/report.jpg.

handreid report RUNS --out report.html      of rendered hands, never of real ones
python docs/report_figure.py report.html
"""

import shutil
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

OUT = Path(__file__).parent / "figures" / "report.jpg"
LEFT = ("header.top", "#ladder", "#curve .card")
RIGHT = ("#rankings .card", "#where .card", "#looks .pairs")
SHOWN = {"#rankings .card": (694, 1030)}  # pixels of a part that is too tall
GROUND, GAP, TALL = (247, 246, 243), 36, 1420  # pixels


def main(report: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))),
            args=["--no-sandbox", "--disable-gpu"],
        )
        page = browser.new_page(viewport={"width": 1000, "height": 900}, color_scheme="light")
        page.goto(report.absolute().as_uri())
        page.wait_for_selector("html[data-ready=true]")
        columns = [
            [picture(page.locator(part).first.screenshot(), *SHOWN.get(part, (0, 10_000))) for part in parts]
            for parts in (LEFT, RIGHT)
        ]
        browser.close()
    width = max(image.width for column in columns for image in column)
    sheet = Image.new("RGB", (2 * width + 3 * GAP, TALL), GROUND)
    for number, column in enumerate(columns):
        below = GAP
        for image in column:
            sheet.paste(image, (GAP + number * (width + GAP), below))
            below += image.height + GAP // 2
    sheet.resize((sheet.width * 3 // 4, sheet.height * 3 // 4), Image.Resampling.LANCZOS).save(OUT, quality=88)


def picture(content: bytes, top: int, bottom: int) -> Image.Image:
    found = Image.open(BytesIO(content)).convert("RGB")
    return found.crop((0, top, found.width, min(bottom, found.height)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

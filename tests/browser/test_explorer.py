"""The explorer in a real browser shows the maps that Python computes, by mouse, keyboard and touch."""

import re

import numpy as np
import pytest
from playwright.sync_api import expect

from csametric.visualization.explorer import LayerView, encode_view
from tests.web.tiny import HEIGHT, WIDTH, file_of, picture

EXPLORER = "document.getElementById('explorer').explorer"
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
POSITIONS = [(0, 0), (95, 31), (40.5, 9), (17, 25.5), (63, 3)]


def position(page):
    return page.evaluate(f"{EXPLORER}.position")


def shown_maps(page, layer, group):
    return np.array(page.evaluate(f"Array.from({EXPLORER}.map({layer}, {group}))"))


def select(page, y, x):
    page.evaluate(f"{EXPLORER}.select({y}, {x})")


def place_of(page, y, x):
    """Convert a position in the image to window coordinates."""
    page.locator(".explorer-image").scroll_into_view_if_needed()
    box = page.locator(".explorer-image").bounding_box()
    return box["x"] + x / WIDTH * box["width"], box["y"] + y / HEIGHT * box["height"]


def point_at(page, y, x):
    page.mouse.move(*place_of(page, y, x))
    until(page, f"Math.hypot({EXPLORER}.position.y - {y}, {EXPLORER}.position.x - {x}) < 0.2")


def until(page, condition):
    """Wait for a condition; Playwright's own wait evaluates strings in the page, which its policy forbids."""
    page.evaluate(
        f"""new Promise((done, fail) => {{
            const wait = (left) => ({condition}) ? done() : left ? setTimeout(wait, 20, left - 1) : fail(new Error('never'));
            wait(200);
        }})"""
    )


def send(page, content):
    """Choose a file and wait for the response."""
    with page.expect_response("**/attention") as response:
        page.locator(".choose input").set_input_files({"name": "p.png", "mimeType": "image/png", "buffer": content})
    expect(page.locator(".busy")).to_be_empty()
    return response.value


def expect_maps(page, attended, y, x):
    """Check map and weights of every layer and group against `AttentionMaps` at the cell of the position."""
    for number, (maps, _) in enumerate(attended.layers.values()):
        height, width = maps.base.shape[-2:]
        cell = min(int(y / HEIGHT * height), height - 1), min(int(x / WIDTH * width), width - 1)
        expected = maps.at(*cell)[0].numpy() * height * width
        for group, map_HW in enumerate(expected):
            np.testing.assert_allclose(shown_maps(page, number, group), map_HW.ravel(), rtol=3e-3, atol=1e-4)
            weights = np.array(page.evaluate(f"Array.from({EXPLORER}.weights({number}, {group}))"))
            np.testing.assert_allclose(weights, maps.weights[0, group, :, *cell], rtol=1e-3, atol=1e-5)
            np.testing.assert_allclose(drawn_weights(page, 2 * number + group), weights, rtol=1e-3, atol=1e-4)


def drawn_weights(page, panel):
    """Read the weights from the heights of a panel's bars and the scale above them."""
    panel = page.locator(".explorer-panel").nth(panel)
    top = float(panel.locator(".explorer-scale span").first.inner_text().split()[-1])
    shape = panel.locator(".explorer-bars .bars").evaluate("bars => bars.style.clipPath")
    corners = np.array(re.findall(r"([\d.e-]+)% ([\d.e-]+)%", shape), float).reshape(-1, 4, 2) / 100
    np.testing.assert_allclose(corners[:, 0, 0] * len(corners), np.arange(len(corners)), atol=1e-3)
    return (1 - corners[:, 1, 1]) * top


def pixels_of(page, selector):
    """Read the pixels of a canvas or an image, (pixels, 4)."""
    read = """async (drawn) => {
        if (drawn.decode) await drawn.decode();
        const canvas = document.createElement('canvas');
        Object.assign(canvas, { width: drawn.naturalWidth ?? drawn.width, height: drawn.naturalHeight ?? drawn.height });
        const context = canvas.getContext('2d');
        context.drawImage(drawn, 0, 0);
        return Array.from(context.getImageData(0, 0, canvas.width, canvas.height).data);
    }"""
    return np.array(page.locator(selector).first.evaluate(read)).reshape(-1, 4)


def test_maps_and_bars_match_python(page, model):
    attended = model.attend(picture(0))
    for y, x in POSITIONS:
        select(page, y, x)
        expect_maps(page, attended, y, x)


def test_hovering_updates_the_maps(page, model):
    attended = model.attend(picture(0))
    for y, x in [(10, 5), (80, 28)]:
        point_at(page, y, x)
        expect_maps(page, attended, y, x)
    assert position(page)["pinned"] is False
    assert page.evaluate(f"{EXPLORER}.milliseconds") > 0


def test_the_colours_span_the_range_of_the_map(page):
    select(page, 40, 10)
    map_P = shown_maps(page, 0, 0)
    colours = pixels_of(page, ".explorer-over canvas")
    assert (colours[:, 3] == 255).all()
    brightness = colours[:, :3].sum(1)
    np.testing.assert_array_equal(colours[map_P.argmin(), :3], [0, 0, 4])
    np.testing.assert_array_equal(colours[map_P.argmax(), :3], [252, 255, 164])
    assert np.corrcoef(map_P, brightness)[0, 1] > 0.95
    page.get_by_label("One colour scale per stage").check()
    assert pixels_of(page, ".explorer-over canvas")[:, :3].sum(1).max() < brightness.max()


def test_the_displayed_numbers_match_the_maps(page, model):
    maps, alpha = model.attend(picture(0)).layers["stage 1"]
    select(page, 40, 10)
    cell = page.evaluate(f"{EXPLORER}.position.cells[0]")
    weights, map_P = maps.weights[0, 0, :, cell["y"], cell["x"]], maps.at(cell["y"], cell["x"])[0, 0].flatten()
    base_DP = maps.base[0, 0].flatten(1)
    cosines = base_DP @ map_P / base_DP.norm(dim=1) / map_P.norm()
    panel = page.locator(".explorer-panel").first
    expect(panel).to_contain_text(f"{weights.max():.3f}: base map {weights.argmax()}")
    expect(panel).to_contain_text(f"{cosines.max():.2f}: base map {cosines.argmax()}")
    header = page.locator(".explorer-stage header").first
    expect(header).to_have_text(re.compile(rf"stage 1.*y {cell['y']}, x {cell['x']} of 24 . 8.*alpha {alpha:.3f}"))
    marked = panel.locator(".explorer-strip > .is-largest")
    expect(marked).to_have_attribute("aria-label", re.compile(f"base map {weights.argmax()}"))


def test_a_click_pins_the_position_and_a_second_click_releases_it(page):
    where = place_of(page, 30, 10)
    page.mouse.click(*where)
    assert position(page)["pinned"] is True
    pinned = position(page)
    page.mouse.move(*place_of(page, 80, 20))
    page.evaluate("new Promise(requestAnimationFrame)")
    assert position(page) == pinned
    page.mouse.click(*where)
    assert position(page)["pinned"] is False
    point_at(page, 80, 20)


def test_arrow_keys_move_by_one_cell(page, model):
    image = page.get_by_role("slider", name=re.compile("arrow keys"))
    select(page, 48, 16)
    image.focus()
    for key, (row, column) in {
        "ArrowDown": (13, 4),
        "ArrowRight": (13, 5),
        "ArrowUp": (12, 5),
        "ArrowLeft": (12, 4),
        "Shift+ArrowUp": (8, 4),
        "Shift+ArrowLeft": (8, 0),
    }.items():
        page.keyboard.press(key)
        assert position(page)["cells"][0] == {"y": row, "x": column}
        expect(image).to_have_attribute("aria-valuetext", f"row {row}, column {column}")
    page.keyboard.press("ArrowLeft")
    assert position(page)["cells"][0] == {"y": 8, "x": 0}
    assert position(page)["pinned"] is True
    page.keyboard.press("Escape")
    assert position(page)["pinned"] is False
    expect_maps(page, model.attend(picture(0)), 8.5 * 4, 2)
    expect(page.locator(".explorer-live")).to_have_text(re.compile(r"Row 8, column 0\. Largest weights: stage 1, group 1"))


def test_the_focus_is_visible(page):
    page.get_by_label("Choose an image").focus()
    focused = set()
    for _ in range(8):
        page.keyboard.press("Tab")
        focused.add(page.evaluate("document.activeElement.className || document.activeElement.type || 'option'"))
        style = page.evaluate("(style => [style.outlineStyle, style.outlineWidth])(getComputedStyle(document.activeElement))")
        assert style[0] != "none"
        assert style[1] != "0px"
    assert {"explorer-image", "explorer-pin", "range", "checkbox"} <= focused


def test_a_base_map_can_be_highlighted_and_selected(page):
    panel = page.locator(".explorer-panel").first
    before = pixels_of(page, ".explorer-over canvas")
    box = panel.locator(".explorer-bars").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] / 2)
    expect(panel.locator(".explorer-strip > .is-chosen")).to_have_attribute("aria-label", "base map 2")
    expect(panel.locator("dd").first).to_have_text(re.compile("base map 2:"))
    np.testing.assert_array_equal(
        pixels_of(page, ".explorer-over canvas"), pixels_of(page, ".explorer-strip [aria-label='base map 2'] img")
    )
    page.mouse.move(1, 1)
    expect(panel.locator(".is-chosen")).to_have_count(0)
    np.testing.assert_array_equal(pixels_of(page, ".explorer-over canvas"), before)
    panel.get_by_role("option").nth(3).click()
    page.mouse.move(1, 1)
    expect(panel.get_by_role("option").nth(3)).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowLeft")
    expect(panel.locator("dd").first).to_have_text(re.compile("base map 2:"))


def test_an_uploaded_file_is_shown(page, model):
    image = picture(3)
    assert send(page, file_of(image)).ok
    select(page, 20, 7)
    expect_maps(page, model.attend(image), 20, 7)


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_dropped_or_pasted_file_is_shown(page, model, kind):
    image = picture(4)
    with page.expect_response("**/attention"):
        page.evaluate(
            """([kind, bytes]) => {
                const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(bytes)], 'p.png', { type: 'image/png' }));
                const event = kind === 'drop'
                    ? new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true })
                    : new ClipboardEvent('paste', { clipboardData: data, bubbles: true });
                document.body.dispatchEvent(event);
            }""",
            [kind, list(file_of(image))],
        )
    expect(page.locator(".busy")).to_be_empty()
    select(page, 50, 20)
    expect_maps(page, model.attend(image), 50, 20)


def test_an_error_is_shown_and_the_picture_stays(page, model):
    assert send(page, b"no picture").status == 415
    expect(page.get_by_role("alert")).to_contain_text("the image is not a BMP, JPEG, PNG, TIFF or WEBP image")
    select(page, 20, 7)
    expect_maps(page, model.attend(picture(0)), 20, 7)
    page.get_by_label("Dismiss the message").click()
    expect(page.get_by_role("alert")).to_be_hidden()
    send(page, b"no picture")
    expect(page.get_by_role("alert")).to_be_visible()
    send(page, file_of(picture(1)))
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_file_that_is_too_large_is_not_sent(page):
    page.evaluate("document.querySelector('.busy').textContent = 'Computing the attention …'")
    large = "Object.defineProperty(new File(['x'], 'p.png'), 'size', { value: 21 * 2 ** 20 })"
    page.evaluate(
        f"""() => {{
            const event = new Event('drop', {{ cancelable: true }});
            event.dataTransfer = {{ files: [{large}] }};
            dispatchEvent(event);
        }}"""
    )
    expect(page.get_by_role("alert")).to_contain_text("larger than 20 MiB")
    expect(page.locator(".busy")).to_be_empty()


@pytest.mark.parametrize(("status", "message"), [(200, "reload the page"), (503, "again in a moment")])
def test_an_unreadable_response_is_explained(page, context, status, message):
    page.route("**/attention", lambda route: route.fulfill(status=status, body="not JSON"))
    send(page, file_of(picture()))
    expect(page.get_by_role("alert")).to_contain_text(message)


@pytest.mark.parametrize("how", [PHONE])
def test_touch_selects_and_pins_positions(page, context, model):
    page.touchscreen.tap(*place_of(page, 70, 6))
    assert position(page)["pinned"] is True
    expect_maps(page, model.attend(picture(0)), 70, 6)
    device = context.new_cdp_session(page)
    drag = [("touchStart", 20, 10), ("touchMove", 50, 20), ("touchMove", 60, 28)]
    for kind, y, x in drag:
        left, top = place_of(page, y, x)
        device.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": left, "y": top}]})
    until(page, f"Math.abs({EXPLORER}.position.y - 60) < 1")
    device.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expect_maps(page, model.attend(picture(0)), 60, 28)
    page.locator(".explorer-bars").first.tap()
    expect(page.locator(".explorer-strip").first.locator(".is-chosen")).to_have_count(1)


@pytest.mark.parametrize("how", [PHONE, {"viewport": {"width": 1280, "height": 900}}], ids=["phone", "desktop"])
def test_the_page_does_not_scroll_sideways(page):
    assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("innerWidth")


@pytest.mark.parametrize("how", [{"color_scheme": "light"}, {"color_scheme": "dark"}], ids=["light", "dark"])
def test_colours_follow_the_light_or_dark_scheme(page, how):
    read = "selector => getComputedStyle(document.querySelector(selector))"
    ink, paper = (
        sum(map(int, re.findall(r"\d+", page.evaluate(f"({read})('{selector}').{name}"))[:3]))
        for selector, name in ((".explorer", "color"), ("body", "backgroundColor"))
    )
    assert (ink > paper) == (how["color_scheme"] == "dark")
    assert abs(ink - paper) > 450
    assert page.locator(".explorer-panel").count() == 6


def test_several_explorers_can_be_mounted_replaced_and_destroyed(page):
    page.evaluate(
        """() => {
            const view = JSON.parse(document.getElementById('first').textContent);
            const twin = document.createElement('div');
            document.body.append(twin);
            mountExplorer(twin, view);
            mountExplorer(twin, { ...view, layers: view.layers.slice(0, 1) });
            globalThis.twin = twin;
        }"""
    )
    select(page, 10, 10)
    page.evaluate("twin.explorer.select(90, 30)")
    assert position(page)["y"] == 10
    assert page.evaluate("twin.querySelectorAll('.explorer-panel').length") == 2
    wait_for_event = (
        "new Promise(done => { twin.addEventListener('explorer:select', e => done(e.detail.y)); twin.explorer.select(33, 3); })"
    )
    assert page.evaluate(wait_for_event) == 33
    page.evaluate("twin.explorer.destroy()")
    assert page.evaluate("[twin.children.length, 'explorer' in twin]") == [0, False]
    point_at(page, 50, 9)


def test_replacing_an_explorer_cancels_pending_updates(page):
    late_events = page.evaluate(
        """async () => {
            const view = JSON.parse(document.getElementById('first').textContent);
            const element = document.getElementById('explorer');
            element.querySelector('.explorer-image').dispatchEvent(new PointerEvent('pointermove', { pointerType: 'mouse' }));
            mountExplorer(element, view);
            let late = 0;
            element.addEventListener('explorer:select', () => { late += 1; });
            await new Promise((done) => setTimeout(done, 100));
            return late;
        }"""
    )
    assert late_events == 0


def test_float16_values_of_every_magnitude_are_decoded(page):
    numbers = np.array([0, 2.0**-24, 2.0**-15, 2.0**-14, 0.3, 1, 65504])
    maps = np.broadcast_to(numbers[:, None, None], (1, len(numbers), 2, 2))
    view = encode_view(picture(0), [LayerView(name="stage 1", alpha=0, base=maps / 4, weights=maps)])
    page.evaluate("view => mountExplorer(document.getElementById('explorer'), view)", view)
    read = page.evaluate(f"Array.from({EXPLORER}.weights(0, 0))")
    np.testing.assert_array_equal(read, numbers.astype(np.float16))


def test_views_inside_a_page_mount_when_they_come_near(page):
    page.evaluate(
        """() => {
            const source = document.getElementById('first');
            source.id = 'far';
            const far = Object.assign(document.createElement('div'), { className: 'explorer', id: 'lazy' });
            far.dataset.view = 'far';
            far.style.marginTop = '9000px';
            document.body.append(far);
            mountExplorers();
        }"""
    )
    page.wait_for_timeout(100)
    assert page.evaluate("'explorer' in document.getElementById('lazy')") is False
    page.evaluate("document.getElementById('lazy').scrollIntoView()")
    until(page, "document.getElementById('lazy').explorer")
    assert page.locator("#lazy .explorer-panel").count() == 6

"""The documentation opened from disk: the search works without any network request."""


def test_the_search_works_without_a_server(site, context):
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else problems.append(request.url))
    page.goto((site / "guides" / "layer.html").as_uri())
    page.click("input.md-search__input")
    page.keyboard.type("hardnet_loss")
    page.wait_for_selector(".md-search-result__item a[href*='losses/hardnet.html']")
    assert problems == []

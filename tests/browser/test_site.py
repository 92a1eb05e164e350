"""The documentation opened from the disk: the search answers, and nothing is asked of the network."""


def test_the_search_answers_without_a_server(site, context):
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else complaints.append(request.url))
    page.goto((site / "guides" / "layer.html").as_uri())
    page.click("input.md-search__input")
    page.keyboard.type("hardnet_loss")
    page.wait_for_selector(".md-search-result__item a[href*='losses/hardnet.html']")
    assert complaints == []

from cmid.report.markup import Markup, join, tag


def test_text_and_attributes_are_escaped():
    assert tag("p", '<b>"&', title='"><script>') == ('<p title="&quot;&gt;&lt;script&gt;">&lt;b&gt;&quot;&amp;</p>')


def test_markup_is_not_escaped_twice():
    assert tag("p", tag("b", "a & b")) == "<p><b>a &amp; b</b></p>"


def test_void_elements_and_bare_attributes():
    assert (
        tag("input", checked=True, disabled=False, data_x=1, class_="a b") == '<input checked data-x="1" class="a b">'
    )


def test_join_flattens_and_drops_none():
    assert join([None, 3, ["<", [Markup("<i></i>")]]]) == "3&lt;<i></i>"

"""Pages in the manner of common systems, written for the tests of extraction."""

from __future__ import annotations

LEAD = "The harbour of the old town froze for the first time since anyone began to keep records of it."
BODY = (
    "Fishermen stood on the quay in the morning and looked at boats that no tide would lift for weeks to come.",
    "The council met at noon, spoke about salt, sand and coal, and sent two men to the mill with a letter.",
    "By evening children had drawn a square on the ice, and nobody remembered who had been the first to step out.",
)
FRAME = (
    "We use cookies to give you the best experience, and to remember what you like.",
    "Ten things about herring that will surprise you, and the last one most of all.",
    "I never believed in that harbour, said a reader who has lived there all his life.",
    "Copyright 2024 The Daily Harbour. All rights reserved.",
)

NEWS = f"""<!doctype html><html lang="en-GB"><head><meta charset="utf-8">
<title>Harbour freezes | The Daily Harbour</title>
<link rel="canonical" href="/2024/harbour"><meta property="article:published_time" content="2024-02-03T10:00:00Z">
<script>var a = "<p>not text</p>";</script><style>p {{ color: red }}</style></head><body class="has-sidebar">
<div class="cookie-banner"><p>{FRAME[0]}</p><button>Accept all</button></div>
<nav><ul><li><a href="/">Home</a></li><li><a href="/sea">Sea</a></li></ul></nav>
<div id="page"><div class="column"><h1>Harbour freezes</h1><p class="standfirst">{LEAD}</p>
<div class="share-bar"><a href="#">Share</a></div>
<div class="text"><p>{BODY[0]}</p><h2>Salt and <em>sand</em></h2><p>{BODY[1]}</p>
<ul><li>two sacks of salt</li><li>one cart of sand</li></ul><p>Read also: <a href="/x">The mill</a></p><p>{BODY[2]}</p>
<h3>More on this</h3><ul><li><a href="/1">The quay</a></li><li><a href="/2">The mill again</a></li></ul></div>
<section class="comments"><h2>Comments</h2><p>{FRAME[2]}</p></section></div>
<aside><a href="/h"><h3>Herring</h3><p>{FRAME[1]}</p></a></aside></div>
<footer><p>{FRAME[3]}</p></footer></body></html>"""

CODE = """<html><head><title>Loops - Handbook</title></head><body>
<div class="sphinxsidebar"><ul><li><a href="a">Next</a></li></ul></div>
<div class="body"><h1>Loops<a class="headerlink" href="#loops">¶</a></h1>
<p>A loop walks over the items of any sequence, in the order that they appear in the sequence.</p>
<div class="highlight"><table><tr><td class="linenos"><pre>1
2
3</pre></td><td class="code"><pre><span class="k">for</span> x <span class="k">in</span> items:
    <span class="k">if</span> x &lt; 3:
        print(x)
</pre></td></tr></table></div>
<p>The variable keeps its last value after the loop, which surprises many people at first.</p>
<table><tr><th>call</th><th>result</th></tr><tr><td><code>range(3)</code></td><td>0, 1, 2</td></tr></table>
</div></body></html>"""


def article(inside: str) -> str:
    """A page whose text is two paragraphs with `inside` between them."""
    return (
        f"<html><body><div id=nav><a href=/>Home</a></div><div class=main><p>{BODY[0]}</p>{inside}<p>{BODY[1]}</p>"
        "</div></body></html>"
    )

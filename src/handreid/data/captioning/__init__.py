"""Captions from what is known of a photo, as sentences in several wordings.

* `facts`      what a caption can say, each fact with its wordings
* `english`    articles, lists, numbers
* `chooser`    seeded choices
* `sentence`   sentences from facts
* `values`     what a column's cells mean: text, yes or no, counts, unknown
* `columns`    facts from columns, from those that captions have wordings for and from any other
* `templates`  wordings of a user's own for a column
* `owner`      gender and age
* `selection`  which columns are said
* `length`     CLIP's limit
* `manifest`   the captions of a manifest
"""

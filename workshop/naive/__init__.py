"""Services as one writes them on a Friday: they work, as long as nothing dies.

They are no straw men. Each line stands in somebody's tutorial, and each does what it promises in every test that kills
nothing. Lesson 04 kills.

    orders.py    two writes, one to the database and one to the broker, in either order
    charges.py   a consumer that charges whatever it is handed
    killing.py   who kills them, and starts them again
    sending.py   a publisher that does not wait for an answer
    aside.py     a cache that everybody fills who finds it empty
    deleting.py  a cache whose entries are deleted after each commit
"""

"""The live dashboard: load that runs while one looks at it, against Predis and Redis in turn. Called by `cli` and notebook 10.

load process                      page's process
------------                      --------------
plays (how each is asked)         session (what is shown, shared by all viewers)
crew (threads, one slice)         headline, words (numbers and sentences from ticks)
worker (slices in turn)  -tick->  page, charts, tiles (one of each a viewer)
                                  tape (ticks as samples: export, record, replay)
"""

"""The map of the library. A room may import from the rooms above it and from itself, never from below.

    text          what a word is, in scripts with and without spaces
    store         bytes that survive: files, records, results and their units, processes       no torch
    stats         numbers about numbers: intervals, ROC curves, perplexity                     no torch
    data          the formats of facts: PARAREL, mLAMA, crawled sentences; fetching them       no torch
    neurons       sets of neurons: refining, comparing, choosing, drawing at random            no torch
    report        reading results back, published numbers, tables, pages, figures              no torch
    model         one transformer as layers of neurons: loading, adapters, prompts, batches
    methods       what is asked of neurons: attribution, interventions, edits
    stage         what surrounds every experiment: the command line, the facts and the model, the runner
    experiments   what single stages measure, where a script alone would be too long

`tests/test_rooms.py` holds the code to this map.
"""

"""Reports of a run and of a version.

report_data: `gather` the manifests and markers that all reports are made from
tables:      the accuracy table
report:      the HTML report, with the command that reproduces the run
charts:      its charts
gallery:     its images
recognised:  the images before networks that took no part in a run: a table and a picture
diff:        the differences of a version from the previous one
"""

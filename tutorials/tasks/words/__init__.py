"""A real network that reads words: from which part of the picture is a letter read?"""

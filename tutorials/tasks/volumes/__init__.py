"""Tissue in volumes: what tells a network the class of a region?"""

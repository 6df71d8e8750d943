"""What is this file, and how is it read?"""

"""What can be done with orders and products, what that needs, and what of it is told."""

from showcase.shop.application.events import HEARS, PRODUCT_CHANGED, TELLS, OrderNumber, ProductData
from showcase.shop.application.ports import CHANGEABLE, OrderSummary, Overtaken, Product, Products, Step
from showcase.shop.application.shop import NoSuchChange, NotAHousehold, Shop

__all__ = [
    "CHANGEABLE",
    "HEARS",
    "PRODUCT_CHANGED",
    "TELLS",
    "NoSuchChange",
    "NotAHousehold",
    "OrderNumber",
    "OrderSummary",
    "Overtaken",
    "Product",
    "ProductData",
    "Products",
    "Shop",
    "Step",
]
